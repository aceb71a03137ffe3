package node

import "time"

// debt is what something has taken of a time that it may take one part of, in the long run: the time that passes pays it off. Up to an allowance nothing
// waits, so that one after another after some quiet does not. It is not safe for concurrent use.
type debt struct {
	parts     int           // of all time, one of which it may take
	allowance time.Duration // what it may owe without a pause
	longest   time.Duration // of a pause; what would take longer to pay off is forgotten

	owed  time.Duration // at the time of since
	since time.Time
}

// settle pays off what has come due until now.
func (d *debt) settle(now time.Time) {
	if !d.since.IsZero() {
		d.owed = max(0, d.owed-now.Sub(d.since)/time.Duration(d.parts))
	}
	d.since = now
}

// pause is how long the next one has to wait from now on.
func (d *debt) pause(now time.Time) time.Duration {
	d.settle(now)
	return min(max(0, d.owed-d.allowance)*time.Duration(d.parts), d.longest)
}

// isOver reports whether more is owed now than the allowance.
func (d *debt) isOver(now time.Time) bool {
	d.settle(now)
	return d.owed > d.allowance
}

// took notes how long one took that has just ended.
func (d *debt) took(t time.Duration, now time.Time) {
	d.settle(now)
	d.owed = min(d.owed+t, d.most())
}

// most is how much is owed at the most, whatever one took, such as one that had to wait for another program's lock.
func (d *debt) most() time.Duration { return d.allowance + d.longest/time.Duration(d.parts) }
