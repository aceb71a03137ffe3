package node

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"

	"github.com/ringfence-io/ringfence/enforcer"
)

// looks is a Live that notes when it was asked to cut.
type looks struct {
	due   chan struct{}
	began time.Time
	at    []time.Duration
	fails int // that many times
	takes time.Duration

	patient atomic.Bool // what is due is not urgent
	check   bool        // no change asks for it
}

func (l *looks) Due() <-chan struct{} { return l.due }

func (l *looks) Urgent() bool { return !l.patient.Load() }

func (l *looks) Cut(context.Context) (enforcer.Ended, error) {
	l.at = append(l.at, time.Since(l.began))
	time.Sleep(l.takes) // of the bubble's clock
	if l.fails > 0 {
		l.fails--
		return enforcer.Ended{}, errors.New("no")
	}
	return enforcer.Ended{Check: l.check}, nil
}

func (l *looks) change() {
	select {
	case l.due <- struct{}{}:
	default:
	}
}

// run runs a Cutter while act takes its time.
func (l *looks) run(t *testing.T, act func()) {
	synctest.Test(t, func(t *testing.T) {
		l.due, l.began = make(chan struct{}, 1), time.Now()
		ctx, stop := context.WithCancel(logr.NewContext(t.Context(), logr.Discard()))
		done := make(chan error)
		spent := func() time.Duration { return time.Since(l.began) } // a look has the processor for all of its time
		go func() { done <- (&Cutter{Live: l, spent: spent}).Start(ctx) }()
		act()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestConnectionsAreLookedAtSoonAndNotAllTheTime(t *testing.T) {
	l := &looks{}
	l.run(t, func() {
		time.Sleep(time.Minute)
		l.change()
		time.Sleep(time.Minute)
		for range 1000 { // ten seconds
			l.change()
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Minute)
	})
	if len(l.at) < 20 || len(l.at) > 40 {
		t.Errorf("11 seconds of changes brought %d looks", len(l.at))
	}
	if l.at[0] != time.Minute+cutDelay {
		t.Errorf("the first look came after %s", l.at[0])
	}
	lastChange := 2*time.Minute + 10*time.Second - 10*time.Millisecond
	if last := l.at[len(l.at)-1]; last < lastChange || last > lastChange+time.Second {
		t.Errorf("the last change was after %s, the last look after %s", lastChange, last)
	}
	for i := 1; i < len(l.at); i++ {
		if l.at[i]-l.at[i-1] < cutPause {
			t.Errorf("two looks within %s", l.at[i]-l.at[i-1])
		}
	}
}

// A million connections take seconds to list: changes without end have them listed for a quarter of the time, and no more.
func TestLooksThatTakeLongComeSeldom(t *testing.T) {
	for takes, want := range map[time.Duration]int{50 * time.Millisecond: 150, 500 * time.Millisecond: 30, 2 * time.Second: 8} {
		l := &looks{takes: takes}
		l.run(t, func() {
			for range 6000 { // a minute
				l.change()
				time.Sleep(10 * time.Millisecond)
			}
		})
		if n := len(l.at); n < want*3/4 || n > want*5/4 || time.Duration(n)*takes > 20*time.Second {
			t.Errorf("looks of %s: %d in a minute, want about %d", takes, n, want)
		}
	}
}

func TestAFailureIsTriedAgainEverMoreSeldom(t *testing.T) {
	l := &looks{fails: 20}
	l.run(t, func() {
		l.change()
		time.Sleep(10 * time.Minute)
	})
	if len(l.at) != 21 {
		t.Fatalf("%d looks, want 20 that fail and one that does not", len(l.at))
	}
	if l.at[1] > time.Second {
		t.Errorf("the second look came after %s", l.at[1])
	}
	for i := 1; i < len(l.at); i++ {
		if l.at[i]-l.at[i-1] > maxCutPause*3/2 {
			t.Errorf("looks %s apart", l.at[i]-l.at[i-1])
		}
	}
}

// Pods of other nodes that go one after the other have connections looked at for a quarter of a percent of the time. The first does not wait, and none for more than a minute.
func TestLooksForPodsThatAreGoneComeSeldom(t *testing.T) {
	const forSoLong = 10 * time.Minute
	for takes, most := range map[time.Duration]int{30 * time.Millisecond: 63, 100 * time.Millisecond: 19, 250 * time.Millisecond: 13, 3 * time.Second: 11} {
		l := &looks{takes: takes}
		l.patient.Store(true)
		l.run(t, func() {
			for range forSoLong / time.Second {
				l.change()
				time.Sleep(time.Second)
			}
		})
		if l.at[0] != cutDelay {
			t.Errorf("looks of %s: the first came after %s", takes, l.at[0])
		}
		if len(l.at) > most || len(l.at) < most*7/10 {
			t.Errorf("looks of %s: %d in ten minutes, want about %d", takes, len(l.at), most)
		}
		for i := 1; i < len(l.at); i++ {
			if apart := l.at[i] - l.at[i-1]; apart > longestPatience+takes+cutShare*takes {
				t.Errorf("looks of %s: %s apart", takes, apart)
			}
		}
	}
}

func TestWhatIsUrgentDoesNotWaitForThePatient(t *testing.T) {
	l := &looks{takes: time.Second}
	l.patient.Store(true)
	var urgentAt time.Duration
	l.run(t, func() {
		l.change()
		time.Sleep(10 * time.Second)
		l.change() // has to wait for a minute by what the first has cost
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if len(l.at) != 1 {
			t.Errorf("the second look came after %s, of two that are patient", l.at[1:])
		}
		l.patient.Store(false)
		urgentAt = time.Since(l.began)
		l.change()
		time.Sleep(10 * time.Second)
	})
	if len(l.at) != 2 || l.at[1] != urgentAt+cutDelay {
		t.Errorf("looks at %s, want the second %s after %s", l.at, cutDelay, urgentAt)
	}
}

// A look that nothing asks for has its own limit: pods that are gone do not wait for what it has cost.
func TestAChecksCostIsNotThatOfPodsThatAreGone(t *testing.T) {
	l := &looks{takes: time.Second, check: true}
	l.patient.Store(true)
	l.run(t, func() {
		l.change()
		time.Sleep(10 * time.Second)
		l.change()
		time.Sleep(10 * time.Second)
	})
	if len(l.at) != 2 || l.at[1] != 10*time.Second+cutDelay {
		t.Errorf("looks at %s", l.at)
	}
}
