package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/go-logr/logr"
)

// server is an API server that knows the tokens of its map, and may be away. It counts how often it is asked.
type server struct {
	tokens map[string]standing
	away   bool
	asked  int
}

func (s *server) review(_ context.Context, token, verb, path string) (standing, error) {
	s.asked++
	if s.away {
		return unknownUser, errors.New("connection refused")
	}
	if s.tokens[token] == allowed && (verb != "get" || path != "/metrics") {
		return notAllowed, nil
	}
	return s.tokens[token], nil
}

// TestGuard plays requests one after another, each some time after the one before.
func TestGuard(t *testing.T) {
	type request struct {
		after         time.Duration
		method        string // GET unless said otherwise
		authorization string
		away          bool
		revoked       bool // from here on no token is known
		want          int
		asked         int // how often the API server has been asked by then
	}
	tests := map[string][]request{
		"nobody": {{want: 401}},
		"no bearer token": {
			{authorization: "Basic reader", want: 401}, {authorization: "Bearer", want: 401}, {authorization: "Bearer ", want: 401},
			{authorization: "reader", want: 401},
		},
		"a token that nobody knows": {{authorization: "Bearer forged", want: 401, asked: 1}},
		"somebody who may not":      {{authorization: "Bearer stranger", want: 403, asked: 1}},
		"somebody who may":          {{authorization: "Bearer reader", want: 200, asked: 1}},
		"the scheme in other case":  {{authorization: "bearer reader", want: 200, asked: 1}},
		"another verb is another question": {
			{authorization: "Bearer reader", want: 200, asked: 1}, {authorization: "Bearer reader", method: "POST", want: 403, asked: 2},
		},
		"asked once a minute": {
			{authorization: "Bearer reader", want: 200, asked: 1}, {after: 59 * time.Second, authorization: "Bearer reader", want: 200, asked: 1},
			{after: time.Second, authorization: "Bearer reader", want: 200, asked: 2},
		},
		"a refusal is not remembered": {
			{authorization: "Bearer stranger", want: 403, asked: 1}, {authorization: "Bearer stranger", want: 403, asked: 2},
		},
		"revoked": {
			{authorization: "Bearer reader", want: 200, asked: 1}, {after: time.Minute, authorization: "Bearer reader", revoked: true, want: 401, asked: 2},
			{after: time.Second, authorization: "Bearer reader", away: true, want: 503, asked: 3},
		},
		"the API server is away": {
			{authorization: "Bearer reader", want: 200, asked: 1},
			{after: 9 * time.Minute, authorization: "Bearer reader", away: true, want: 200, asked: 2},
			{after: time.Second, authorization: "Bearer another", away: true, want: 503, asked: 3},
			{after: time.Minute, authorization: "Bearer reader", away: true, want: 503, asked: 4},
		},
	}
	for name, requests := range tests {
		t.Run(name, func(t *testing.T) {
			api := &server{tokens: map[string]standing{"reader": allowed, "stranger": notAllowed, "another": allowed}}
			ask, pass := guarded(t, api)
			for i, r := range requests {
				pass(r.after)
				api.away = r.away
				if r.revoked {
					api.tokens = nil
				}
				if got := ask(r.method, r.authorization); got != r.want {
					t.Errorf("request %d: status %d, want %d", i, got, r.want)
				}
				if api.asked != r.asked {
					t.Errorf("request %d: the API server was asked %d times, want %d", i, api.asked, r.asked)
				}
			}
		})
	}
}

// Whoever sends token after token does not have us flood the API server, nor keep those out who were let in.
func TestGuardIsNoWayToFloodTheAPIServer(t *testing.T) {
	api := &server{tokens: map[string]standing{"reader": allowed}}
	ask, pass := guarded(t, api)
	if got := ask("", "Bearer reader"); got != 200 {
		t.Fatalf("the reader gets %d", got)
	}
	pass(2 * time.Minute)
	seen := map[int]int{}
	for i := range 1000 {
		seen[ask("", fmt.Sprintf("Bearer forged-%d", i))]++
	}
	if api.asked > 20 || seen[http.StatusTooManyRequests] < 980 {
		t.Errorf("1,000 tokens are %d questions; answers by status: %v", api.asked, seen)
	}
	if got := ask("", "Bearer reader"); got != 200 {
		t.Errorf("meanwhile the reader gets %d", got)
	}
}

// Tokens change every hour; what is remembered of them does not grow.
func TestGuardForgetsOldTokens(t *testing.T) {
	api := &server{tokens: map[string]standing{}}
	for i := range 3 * guardTokens {
		api.tokens[fmt.Sprint(i)] = allowed
	}
	g := newGuard(api.review)
	now := time.Unix(1_000_000, 0)
	g.now = func() time.Time { return now }
	for i := range 3 * guardTokens {
		now = now.Add(time.Second)
		if got, err := g.ask(t.Context(), fmt.Sprint(i), "get", "/metrics"); got != allowed || err != nil {
			t.Fatalf("token %d: %v, %v", i, got, err)
		}
	}
	if len(g.passed) != guardTokens {
		t.Errorf("%d tokens are remembered, want %d", len(g.passed), guardTokens)
	}
	asked := api.asked
	if _, err := g.ask(t.Context(), fmt.Sprint(3*guardTokens-1), "get", "/metrics"); err != nil || api.asked != asked {
		t.Errorf("the newest token is forgotten first (%v)", err)
	}
}

// guarded is a page behind a guard: what a request gets, and how time passes.
func guarded(t *testing.T, api *server) (ask func(method, authorization string) int, pass func(time.Duration)) {
	t.Helper()
	now := time.Unix(1_000_000, 0)
	g := newGuard(api.review)
	g.now = func() time.Time { return now }
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	handler, err := g.filter(logr.Discard(), page)
	if err != nil {
		t.Fatal(err)
	}
	ask = func(method, authorization string) int {
		r := httptest.NewRequest(method, "https://node:9441/metrics", http.NoBody)
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w.Code
	}
	return ask, func(d time.Duration) { now = now.Add(d) }
}
