package node

import "time"

// Whoever can write policies can write lines into the log of every node, by fields that are not understood. A namespace has so many lines in a while.
const (
	linesAWhile = 30
	lineWhile   = time.Minute
	// longestLine bounds one line's text, which quotes what a policy says.
	longestLine = 1024
)

// problemLines counts lines by namespace. What is left out is counted in one line when the while is over.
type problemLines struct {
	since time.Time
	lines map[string]int
}

// may reports whether a namespace may have another line. over is called for each namespace that had more than it may in the while before.
func (s *problemLines) may(now time.Time, namespace string, over func(namespace string, leftOut int)) bool {
	if now.Sub(s.since) >= lineWhile {
		for name, n := range s.lines {
			if n > linesAWhile {
				over(name, n-linesAWhile)
			}
		}
		s.since, s.lines = now, map[string]int{}
	}
	s.lines[namespace]++
	return s.lines[namespace] <= linesAWhile
}
