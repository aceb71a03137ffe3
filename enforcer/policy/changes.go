package policy

import "fmt"

// Changes are what a back end changes in the kernel, or what others have changed there, in words that every back end has. Whoever asks learns what changes, and
// not how. The zero Changes are none.
type Changes struct {
	Tables  int // whose rules are written anew, at most one of each family
	Jumps   int // those that lead packets to our rules, and are put where they belong
	Sets    int // that come or go as a whole
	Added   int // entries that come into a set, before the rules that rely on them
	Removed int // entries that leave a set
	Opened  int // entries of a set of known addresses, which come last: they let through, and never deny
	Others  int // all else, such as the guards of links
	// WereAway is set if nothing led packets to our rules: they were not asked, and nobody had connections tracked.
	WereAway bool
	// Text are the changes one by one, in the words of the back end. It is nil if there are none.
	Text fmt.Stringer
}

// Empty reports whether nothing changes.
func (c Changes) Empty() bool {
	return c.Tables+c.Jumps+c.Sets+c.Added+c.Removed+c.Opened+c.Others == 0
}

// Then are the changes with others behind them.
func (c Changes) Then(o Changes) Changes {
	switch {
	case c.Empty():
		return o
	case o.Empty():
		return c
	}
	return Changes{
		Tables: max(c.Tables, o.Tables), Jumps: c.Jumps + o.Jumps, Sets: c.Sets + o.Sets, Added: c.Added + o.Added, Removed: c.Removed + o.Removed,
		Opened: c.Opened + o.Opened, Others: c.Others + o.Others, WereAway: c.WereAway || o.WereAway, Text: texts{c.Text, o.Text},
	}
}

type texts []fmt.Stringer

func (t texts) String() (all string) {
	for _, one := range t {
		all += one.String()
	}
	return all
}

// Counts are how many of each noun change: "table", "jump", "set", "entry", and "guard" for the rest. Each is there, with 0 if none does.
func (c Changes) Counts() map[string]int {
	return map[string]int{"table": c.Tables, "jump": c.Jumps, "set": c.Sets, "entry": c.Added + c.Removed + c.Opened, "guard": c.Others}
}

// String is the text of the changes, which may be several megabytes long.
func (c Changes) String() string {
	if c.Text == nil {
		return ""
	}
	return c.Text.String()
}
