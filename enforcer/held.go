package enforcer

import "time"

// What the other end of a connection that was cut still sends is held off by an entry of a set, which has room for so many. Whoever opens connections and has
// them denied fills it. So a namespace may have as much as is free besides: one alone half of the room, ten together all but an eleventh, and whoever comes
// then half of what is left. Nobody's entries go for the sake of another's.

// room is what is held off in one family, by namespace.
type room struct {
	free int
	own  map[string]int
	ends map[int64]map[string]int // how many end in a minute, by namespace
	seen int64                    // the minute up to which what has ended is forgotten
}

func newRoom(size int) *room {
	return &room{free: size, own: map[string]int{}, ends: map[int64]map[string]int{}}
}

// take takes room for one connection of a namespace for a time, and reports whether there was some.
func (r *room) take(namespace string, now time.Time, d time.Duration) bool {
	r.forget(now.Unix() / 60)
	if r.own[namespace] >= r.free {
		return false
	}
	r.free--
	r.own[namespace]++
	end := now.Add(d).Unix()/60 + 1
	if r.ends[end] == nil {
		r.ends[end] = map[string]int{}
	}
	r.ends[end][namespace]++
	return true
}

// forget gives back what has ended by a minute.
func (r *room) forget(minute int64) {
	if minute == r.seen {
		return
	}
	r.seen = minute
	for end, of := range r.ends {
		if end > minute {
			continue
		}
		for namespace, n := range of {
			r.free += n
			if r.own[namespace] -= n; r.own[namespace] == 0 {
				delete(r.own, namespace)
			}
		}
		delete(r.ends, end)
	}
}
