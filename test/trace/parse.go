package trace

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Parse reads tables and sets from one text: each table in the form of iptables-save, behind a comment line "# inet" or
// "# inet6", and the sets in the form of ipset save.
func Parse(text string) (*Kernel, error) {
	parts := map[Family]*strings.Builder{4: {}, 6: {}}
	var sets strings.Builder
	to := &sets
	for line := range strings.Lines(text) {
		switch strings.TrimSpace(line) {
		case "# inet":
			to = parts[4]
		case "# inet6":
			to = parts[6]
		case "COMMIT":
			to.WriteString(line)
			to = &sets
		default:
			to.WriteString(line)
		}
	}
	return Load(map[Family]string{4: parts[4].String(), 6: parts[6].String()}, sets.String())
}

// Load reads one table per family in the form of iptables-save, and sets in the form of ipset save.
func Load(tables map[Family]string, sets string) (*Kernel, error) {
	k := &Kernel{tables: map[Family]map[string][]rule{}, sets: map[string]*set{}}
	if err := k.readSets(sets); err != nil {
		return nil, fmt.Errorf("reading sets: %w", err)
	}
	for f, text := range tables {
		chains, err := k.readTable(f, text)
		if err != nil {
			return nil, fmt.Errorf("reading table of family %d: %w", f, err)
		}
		k.tables[f] = chains
	}
	return k, k.check()
}

// readTable reads ":CHAIN policy [counters]" and "-A CHAIN rule" lines. A chain is declared before it has rules; base chains need
// not be.
func (k *Kernel) readTable(f Family, text string) (map[string][]rule, error) {
	chains := map[string][]rule{"INPUT": nil, "FORWARD": nil, "OUTPUT": nil}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case line == "", line == "COMMIT", strings.HasPrefix(line, "#"), strings.HasPrefix(line, "*"):
		case strings.HasPrefix(line, ":"):
			name, _, _ := strings.Cut(line[1:], " ")
			chains[name] = nil
		case strings.HasPrefix(line, "-A "):
			name, text, _ := strings.Cut(line[len("-A "):], " ")
			if _, ok := chains[name]; !ok {
				return nil, fmt.Errorf("line %q: chain is not declared", line)
			}
			r, err := k.readRule(f, text)
			if err != nil {
				return nil, fmt.Errorf("line %q: %w", line, err)
			}
			chains[name] = append(chains[name], r)
		default:
			return nil, fmt.Errorf("line %q is not known", line)
		}
	}
	return chains, nil
}

// ruleReader reads the options of one rule.
type ruleReader struct {
	*Kernel
	family   Family
	words    []string
	protocol int // 0 until -p
	module   string
	seen     map[string]bool
	rule     rule
}

func (k *Kernel) readRule(f Family, text string) (rule, error) {
	words, err := split(text)
	if err != nil {
		return rule{}, err
	}
	r := &ruleReader{Kernel: k, family: f, words: words, seen: map[string]bool{}, rule: rule{text: text}}
	for len(r.words) > 0 {
		if err := r.option(); err != nil {
			return rule{}, err
		}
	}
	return r.rule, nil
}

// negatable are the options that may stand behind "!".
var negatable = []string{"--ctstate", "--tcp-flags", "--match-set", "--src-type", "--dst-type"}

// option reads one option with its argument. Every option here takes exactly one, but --match-set and --tcp-flags take two.
func (r *ruleReader) option() error {
	negated := r.words[0] == "!"
	if negated {
		r.words = r.words[1:]
		if len(r.words) == 0 || !slices.Contains(negatable, r.words[0]) {
			return fmt.Errorf("! %s: there is no such option here", strings.Join(r.words, " "))
		}
	}
	option := r.words[0]
	if len(r.words) < 2 {
		return fmt.Errorf("%s lacks its argument", option)
	}
	argument := r.words[1]
	r.words = r.words[2:]
	if option != "-m" && r.seen[option] {
		return fmt.Errorf("%s stands twice", option)
	}
	// Two sets may be matched by one rule: each by its own module.
	r.seen[option] = option != "--match-set"
	var m match
	var err error
	switch option {
	case "-j", "-g":
		if r.rule.target != "" {
			return errors.New("rule has two targets")
		}
		r.rule.target, r.rule.isGoto = argument, option == "-g"
	case "-m":
		r.module = argument
		return knownModule(argument)
	case "-s":
		m, err = source(r.family, argument)
	case "-d":
		m, err = destination(r.family, argument)
	case "-p":
		m, err = r.readProtocol(argument)
	case "--nflog-prefix", "--nflog-group":
		if r.rule.target != "NFLOG" || len(argument) > 63 {
			err = errors.New("it wants the target NFLOG, and takes 63 characters")
		}
	default:
		m, err = r.moduleOption(option, argument)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", option, argument, err)
	}
	if negated {
		m = not(m)
	}
	if m != nil {
		r.rule.matches = append(r.rule.matches, m)
	}
	return nil
}

func not(m match) match {
	return func(p *Packet) (bool, error) {
		ok, err := m(p)
		return !ok, err
	}
}

// split cuts a rule at spaces; a word in double quotes may hold spaces, and quotes behind a backslash.
func split(text string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord, quoted := false, false
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case quoted && c == '\\' && i+1 < len(text):
			i++
			word.WriteByte(text[i])
		case c == '"':
			quoted, inWord = !quoted, true
		case c == ' ' && !quoted:
			if inWord {
				words = append(words, word.String())
			}
			word.Reset()
			inWord = false
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	if quoted {
		return nil, errors.New("a quote is not closed")
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}
