package node

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// countedAPI answers with sizes, and notes what it was asked.
type countedAPI struct {
	of    map[string]int
	fails bool
	asked []string
}

func (c *countedAPI) ask(_ context.Context, namespace string) (int, error) {
	c.asked = append(c.asked, namespace)
	if c.fails {
		return 0, errors.New("no")
	}
	return c.of[namespace], nil
}

// sized runs sizes in a bubble, whose clock tests move.
func sized(t *testing.T, c *countedAPI, act func(s *sizes)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newSizes()
		s.ask = c.ask
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Start(ctx) }()
		act(s)
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestNeitherLessThanThePodsNorThanTheNodesIsTooFew(t *testing.T) {
	api := &countedAPI{of: map[string]int{"": 100, "small": 3, "large": 7000}}
	sized(t, api, func(s *sizes) {
		if got := s.atMost("small"); got != anyNodes {
			t.Errorf("before anything is known: %d nodes", got)
		}
		s.want([]string{"", "small", "large"}, time.Now())
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if got := s.atMost("small"); got != 100 && got != 3 { // it may be asked about at once
			t.Errorf("before anything but the number of nodes is known: %d nodes", got)
		}
		time.Sleep(2 * sizesSpread)
		synctest.Wait()
		for namespace, want := range map[string]int{"": 100, "small": 3, "large": 100, "another": 100} {
			if got := s.atMost(namespace); got != want {
				t.Errorf("%q: %d nodes, want %d", namespace, got, want)
			}
		}
		if len(api.asked) != 3 {
			t.Errorf("asked for %q", api.asked)
		}
	})
}

func TestASizeIsAskedForNowAndThen(t *testing.T) {
	api := &countedAPI{of: map[string]int{"": 100, "a": 3}}
	sized(t, api, func(s *sizes) {
		for range 60 {
			s.want([]string{"", "a"}, time.Now())
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		if n := len(api.asked); n < 8 || n > 14 {
			t.Errorf("asked %d times in an hour, for two", n)
		}
		api.fails, api.asked = true, nil
		for range 60 {
			s.want([]string{"", "a"}, time.Now())
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		if n := len(api.asked); n > 4*60 {
			t.Errorf("asked %d times in an hour of failures", n)
		}
		if got := s.atMost("a"); got != 3 {
			t.Errorf("what was known is forgotten, since there is no answer: %d", got)
		}
		s.want([]string{""}, time.Now())
		time.Sleep(sizesKept)
		s.want([]string{""}, time.Now())
		synctest.Wait()
		if len(s.of) != 1 {
			t.Errorf("%d are remembered, one is wanted", len(s.of))
		}
	})
}

// A thousand namespaces are not a thousand questions at once.
func TestSizesAreAskedForOneAfterTheOther(t *testing.T) {
	api := &countedAPI{}
	sized(t, api, func(s *sizes) {
		names := make([]string, 1000)
		for i := range names {
			names[i] = string(rune('a' + i))
		}
		s.want(names, time.Now())
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if most := 1 + int(10*time.Second/sizesPause); len(api.asked) > most {
			t.Errorf("asked %d times in ten seconds, %d is the most", len(api.asked), most)
		}
	})
}
