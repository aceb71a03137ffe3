package policy_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/ringfence-io/ringfence/enforcer/policy"
)

// TestMap: whatever it was made from, a Map has what a map has after the same edits, is deeply equal to one that is made of that at once, and leaves those
// before it alone. What differs since any of these is found, and what both share is not looked at.
func TestMap(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 1))
		want, got := map[string]int{}, policy.Map[string, int]{}
		type state struct {
			want map[string]int
			got  policy.Map[string, int]
		}
		var past []state
		for step := range 300 {
			past = append(past, state{maps.Clone(want), got})
			edits := map[string]*int{}
			for range random.IntN(1 << random.IntN(8)) {
				key := fmt.Sprint(random.IntN(500))
				if edits[key] = nil; random.IntN(3) > 0 && seed%2 == uint64(step/100%2) {
					edits[key] = &step
				}
			}
			for key, value := range edits {
				if delete(want, key); value != nil {
					want[key] = *value
				}
			}
			if got = got.Edited(edits); step%5 == 0 {
				key := fmt.Sprint(random.IntN(500))
				got, want[key] = got.With(key, -step), -step
				key = fmt.Sprint(random.IntN(500))
				got = got.Without(key)
				delete(want, key)
			}
			if have := maps.Collect(got.All()); !maps.Equal(have, want) || got.Len() != len(want) || !reflect.DeepEqual(got, policy.MapOf(want)) {
				t.Fatalf("seed %d, step %d: it has %v (%d), want %v", seed, step, have, got.Len(), want)
			}
			for key := range 500 {
				value, there := got.Lookup(fmt.Sprint(key))
				if wanted, ok := want[fmt.Sprint(key)]; value != wanted || there != ok {
					t.Fatalf("seed %d, step %d: %d has %d, %t; want %d, %t", seed, step, key, value, there, wanted, ok)
				}
			}
			before := past[random.IntN(len(past))]
			if have := maps.Collect(before.got.All()); !maps.Equal(have, before.want) {
				t.Fatalf("seed %d, step %d: an earlier one has become %v, from %v", seed, step, have, before.want)
			}
			since := maps.Clone(before.want)
			got.Since(before.got, func(key string, was, is *int) {
				old, had := before.want[key]
				now, has := want[key]
				if had != (was != nil) || has != (is != nil) || had && *was != old || has && *is != now {
					t.Fatalf("seed %d, step %d: what has become of %s is wrong", seed, step, key)
				}
				if delete(since, key); has {
					since[key] = now
				}
			})
			if !maps.Equal(since, want) {
				t.Fatalf("seed %d, step %d: what has changed makes %v, want %v", seed, step, since, want)
			}
		}
	}
	all := map[string]int{}
	for i := range 10_000 {
		all[fmt.Sprint(i)] = i
	}
	m, seen := policy.MapOf(all), 0
	m.With("7", 0).Since(m, func(string, *int, *int) { seen++ })
	if seen == 0 || seen > 20 {
		t.Errorf("one key of 10,000 has another value, and %d were looked at", seen)
	}
}
