package kit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// recorder is a test that records how it ends.
type recorder struct {
	testing.TB
	ctx   context.Context
	ended string
}

func (r *recorder) Helper()                  {}
func (r *recorder) Name() string             { return "TestX" }
func (r *recorder) Context() context.Context { return r.ctx }

// Fatal ends the test.
func (r *recorder) Fatal(args ...any) { r.end("fatal: " + fmt.Sprint(args...)) }

// Fatalf ends the test.
func (r *recorder) Fatalf(format string, args ...any) {
	r.end("fatal: " + fmt.Sprintf(format, args...))
}

// Skipf ends the test.
func (r *recorder) Skipf(format string, args ...any) {
	r.end("skipped: " + fmt.Sprintf(format, args...))
}

func (r *recorder) end(how string) {
	r.ended = how
	runtime.Goexit()
}

// endOf says how a test ends; it is empty if the test goes on.
func endOf(t *testing.T, test func(testing.TB)) string {
	t.Helper()
	r := &recorder{TB: t, ctx: t.Context()}
	done := make(chan struct{})
	go func() {
		defer close(done)
		test(r)
	}()
	<-done
	return r.ended
}

func TestMust(t *testing.T) {
	if got := endOf(t, func(t testing.TB) { Must(t, nil) }); got != "" {
		t.Errorf("without an error the test ends: %s", got)
	}
	if got := endOf(t, func(t testing.TB) { Must(t, errors.New("no")) }); got != "fatal: no" {
		t.Errorf("with an error the test ends with %q", got)
	}
}

// As root, and as somebody else, without CI and in CI: with all that tests say to whoever starts them.
func TestNeedRoot(t *testing.T) {
	if err := rootWith(false, nil); !errors.Is(err, errNotRoot) {
		t.Errorf("without root: %v", err)
	}
	if err := rootWith(true, []string{"go"}); err != nil {
		t.Errorf("root with a program: %v", err)
	}
	if err := rootWith(true, []string{"go", "there-is-no-such-program"}); err == nil || errors.Is(err, errNotRoot) {
		t.Errorf("root without a program: %v", err)
	}
	for _, ci := range []string{"", "true"} {
		t.Setenv("CI", ci)
		want := ""
		switch {
		case os.Geteuid() == 0:
		case ci == "true":
			want = "fatal: TestX cannot run: " + errNotRoot.Error()
		default:
			want = "skipped: LEFT OUT: TestX: " + errNotRoot.Error()
		}
		if got := endOf(t, func(t testing.TB) { NeedRoot(t) }); got != want {
			t.Errorf("with CI=%q the test ends with %q, want %q", ci, got, want)
		}
		if got := endOf(t, func(t testing.TB) { NeedRoot(t, "there-is-no-such-program") }); os.Geteuid() == 0 && !strings.HasPrefix(got, "fatal: ") {
			t.Errorf("with CI=%q a test of root, without its program, ends with %q", ci, got)
		}
	}
}

func TestContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		<-Context(t, time.Minute).Done()
		if took := time.Since(start); took != time.Minute {
			t.Errorf("it ends after %s", took)
		}
	})
}

func TestEventually(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		later := func() bool { return time.Since(start) > time.Second }
		if got := endOf(t, func(t testing.TB) { Eventually(t, time.Minute, "x", later) }); got != "" {
			t.Errorf("with a condition that holds after a second the test ends: %s", got)
		}
		if took := time.Since(start); took > time.Second+10*time.Millisecond {
			t.Errorf("it notices after %s", took)
		}
		if got := endOf(t, func(t testing.TB) { Eventually(t, time.Minute, "x", func() bool { return false }) }); got != "fatal: not within 1m0s: x" {
			t.Errorf("with a condition that never holds the test ends with %q", got)
		}
	})
}

func TestEventuallySucceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		later := func(context.Context) error {
			if time.Since(start) > time.Second {
				return nil
			}
			return errors.New("not yet")
		}
		if got := endOf(t, func(t testing.TB) { EventuallySucceeds(t, time.Minute, "x", later) }); got != "" {
			t.Errorf("with a try that succeeds after a second the test ends: %s", got)
		}
		// The last try is under way when time is up: what it says is nothing but that.
		slow := func(ctx context.Context) error {
			if deadline, _ := ctx.Deadline(); time.Until(deadline) > time.Second {
				time.Sleep(time.Second)
				return errors.New("not yet")
			}
			<-ctx.Done()
			return ctx.Err()
		}
		got := endOf(t, func(t testing.TB) { EventuallySucceeds(t, time.Minute, "x", slow) })
		if !strings.HasPrefix(got, "fatal: not within 1m0s: x: not yet") {
			t.Errorf("with a try that never succeeds the test ends with %q", got)
		}
	})
}
