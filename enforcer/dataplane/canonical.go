package dataplane

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/ringfence-io/ringfence/enforcer/iptables"
)

// Canonical brings a rule, as any version of iptables-save prints it on either back end, to the one text by which
// rules are compared:
//
//	-s PREFIX -d PREFIX -p PROTOCOL  -m ... (in the order of matchOrder)  -m comment --comment "..."  -j|-g TARGET
//
// Prefixes read as netip prints them, protocols as policy.Protocol does, a comment and a BPF program are always quoted,
// and what matches every packet is left out. A rule that nobody here would write stays what it is, word by word.
func Canonical(r iptables.Rule) iptables.Rule {
	ws := words(string(r))
	if n := len(ws); n > 0 && ws[n-1].takesAny() {
		return r // whatever came to stand behind it would be its value
	}
	parts := split(ws)
	for i := range parts {
		parts[i].normalise()
	}
	parts = slices.DeleteFunc(parts, part.matchesAll)
	slices.SortStableFunc(parts, func(a, b part) int { return cmp.Compare(a.order(), b.order()) })
	var text []string
	for _, p := range parts {
		text = append(text, p.String())
	}
	return iptables.Rule(strings.Join(text, " "))
}

// word is one word of a rule's text. A quoted word is a value, never an option, and so is one behind an option whose value may be anything.
type word struct {
	text   string
	quoted bool
	value  bool
}

func (w word) isValue() bool { return w.quoted || w.value }

// is reports whether the word is this option.
func (w word) is(option string) bool { return w.text == option && !w.isValue() }

// takesAny reports an option whose value may look like an option itself, and is not always quoted.
func (w word) takesAny() bool { return w.is("--comment") || w.is("--bytecode") || w.is("--match-set") }

// words takes a rule's text apart as iptables-restore does: at blanks, except within double quotes, where a backslash
// escapes what follows it.
func words(s string) []word {
	var all []word
	var w word
	var text []byte // of w
	var in, quoted bool
	end := func() {
		w.text = string(text)
		all = append(all, w)
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\\' && i+1 < len(s):
			i++
			text = append(text, s[i])
		case c == '"':
			quoted = !quoted
			in, w.quoted = true, true
		case !quoted && (c == ' ' || c == '\t'):
			if in {
				end()
			}
			w, text, in = word{}, text[:0], false
		default:
			in = true
			text = append(text, c)
		}
	}
	if in {
		end()
	}
	for i := 1; i < len(all); i++ {
		if option := all[i-1]; option.takesAny() {
			all[i].value = true
			all[i].quoted = all[i].quoted || !option.is("--match-set") // so that it is written as any other: iptables-save quotes as needed
		}
	}
	return all
}

// String is the word as iptables-restore reads it back.
func (w word) String() string {
	if !w.quoted && w.text != "" && !strings.ContainsAny(w.text, " \t\"'\\") {
		return w.text
	}
	return `"` + quoter.Replace(w.text) + `"`
}

// iptables-save escapes these three within quotes; its reader takes them with or without.
var quoter = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `'`, `\'`)

// part is a rule's piece that stands or moves as one: an address or protocol with its value, a match with its options, or
// the target with its options.
type part []word

// split takes a rule apart where an option begins that is not a match's own.
func split(ws []word) []part {
	var parts []part
	start := 0
	for i := 0; i < len(ws); i++ {
		switch {
		case ws[i].isValue():
		case beginsPart(ws, i):
			if i > start {
				parts = append(parts, ws[start:i:i])
			}
			start = i
			if ws[i].text == "!" {
				i++
			}
		}
	}
	if start < len(ws) {
		parts = append(parts, ws[start:])
	}
	return parts
}

// beginsPart reports whether an option that belongs to no match stands at i, or its negation.
func beginsPart(ws []word, i int) bool {
	if ws[i].text == "!" {
		return i+1 < len(ws) && !ws[i+1].isValue() && isOwnOption(ws[i+1].text)
	}
	return isOwnOption(ws[i].text)
}

func isOwnOption(s string) bool { return len(s) == 2 && s[0] == '-' && s != "--" }

// option is the part's first option, "-s" or "-m", and the value of it.
func (p part) option() (name, value string) {
	if len(p) > 0 && p[0].text == "!" {
		p = p[1:]
	}
	if len(p) > 0 {
		name = p[0].text
	}
	if len(p) > 1 {
		value = p[1].text
	}
	return name, value
}

func (p part) negated() bool { return p[0].text == "!" }

func (p part) String() string {
	text := make([]string, len(p))
	for i, w := range p {
		text[i] = w.String()
	}
	return strings.Join(text, " ")
}

// optionOrder is where the parts of a rule stand that are not matches, and matchOrder is where the matches do; a match that
// is not listed stands before the comment. Only the cost of a rule depends on the order of its matches.
var (
	optionOrder = map[string]int{"-s": 1, "-d": 2, "-i": 3, "-o": 4, "-p": 5, "-f": 6, "-j": 90, "-g": 90}
	matchOrder  = map[string]int{
		"tcp": 11, "udp": 11, "sctp": 11, "icmp": 11, "icmp6": 11, "multiport": 12, "conntrack": 13, "bpf": 14, "set": 15,
		"comment": 80,
	}
)

func (p part) order() int {
	name, value := p.option()
	if name == "-m" {
		if n, ok := matchOrder[value]; ok {
			return n
		}
		return 70
	}
	if n, ok := optionOrder[name]; ok {
		return n
	}
	if !isOwnOption(name) {
		return 0 // words before the first option: behind one they would be its value
	}
	return 7
}

// matchesAll reports a part that restricts nothing: an address of length 0, any protocol, or a protocol match without
// options, which iptables-save prints for a match on all ports.
func (p part) matchesAll() bool {
	if p.negated() {
		return false
	}
	switch name, value := p.option(); name {
	case "-s", "-d":
		prefix, err := netip.ParsePrefix(value)
		return err == nil && prefix.Bits() == 0
	case "-p":
		return value == "all" || value == "0"
	case "-m":
		return len(p) == 2 && (value == "tcp" || value == "udp" || value == "sctp")
	}
	return false
}

// normalise rewrites the values that iptables versions print differently.
func (p part) normalise() {
	for i := 0; i+1 < len(p); i++ {
		if p[i].isValue() {
			continue
		}
		v := &p[i+1]
		switch p[i].text {
		case "-s", "-d":
			v.text = prefixText(v.text)
		case "-p":
			v.text = protocolText(v.text)
		case "--dport", "--sport", "--dports", "--sports", "--ports":
			v.text = portsText(v.text)
		case "--ctstate":
			v.text = statesText(v.text)
		}
	}
}
