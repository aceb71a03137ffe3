package cni

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/version"
)

// entry is our element of a network configuration's list of plugins.
type entry struct {
	Type string `json:"type"`
	Settings
}

// list is the text of a network configuration list, with where its plugins stand in it.
type list struct {
	text     []byte
	versions []string // of the CNI specification, that it says of itself
	plugins  []element
}

// element is one plugin: its type, and the bytes from start up to end.
type element struct {
	kind       string
	start, end int
}

// readList finds the plugins in a network configuration list. What it does not understand in full it leaves alone, with an error.
func readList(text []byte) (list, error) {
	l := list{text: text}
	var whole struct {
		Name     string            `json:"name"`
		Version  string            `json:"cniVersion"`
		Versions []string          `json:"cniVersions"`
		Plugins  []json.RawMessage `json:"plugins"`
	}
	if err := json.Unmarshal(text, &whole); err != nil {
		return l, fmt.Errorf("reading a network configuration list: %w", err)
	}
	if whole.Name == "" || len(whole.Plugins) == 0 {
		return l, errors.New("reading a network configuration list: it has no name, or no plugins")
	}
	if l.versions = whole.Versions; whole.Version != "" {
		l.versions = append(l.versions, whole.Version)
	}
	start, err := pluginsAt(text)
	if err != nil {
		return l, fmt.Errorf("reading a network configuration list: %w", err)
	}
	for _, raw := range whole.Plugins {
		var plugin struct {
			Type string `json:"type"`
		}
		if err := json.Unmarshal(raw, &plugin); err != nil || plugin.Type == "" {
			return l, fmt.Errorf("reading a network configuration list: one of its plugins has no type: %.60q", raw)
		}
		// Between two elements are blanks and a comma, which no element begins with.
		offset := bytes.Index(text[start:], raw)
		if offset < 0 || strings.Trim(string(text[start:start+offset]), " \t\r\n,") != "" {
			return l, errors.New("reading a network configuration list: its plugins are not where they should be")
		}
		e := element{kind: plugin.Type, start: start + offset, end: start + offset + len(raw)}
		l.plugins = append(l.plugins, e)
		start = e.end
	}
	return l, nil
}

// pluginsAt is where the elements of the one list of plugins begin.
func pluginsAt(text []byte) (int, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	if _, err := d.Token(); err != nil {
		return 0, err
	}
	at := -1
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return 0, err
		}
		var value json.RawMessage
		if strings.EqualFold(fmt.Sprint(key), "plugins") { // as Go's decoder, which runtimes use, takes it
			if at >= 0 {
				return 0, errors.New("it has two lists of plugins")
			}
			before := int(d.InputOffset())
			bracket := bytes.IndexByte(text[before:], '[')
			at = before + bracket + 1
		}
		if err := d.Decode(&value); err != nil {
			return 0, err
		}
	}
	if at < 0 {
		return 0, errors.New("it has no list of plugins")
	}
	return at, nil
}

// speakable says why we could not be called by a list. A runtime may choose any of the versions that it names, and one that we do not speak
// would fail ADD, and DEL of the plugins before us.
func (l list) speakable() error {
	ours := version.All.SupportedVersions()
	for _, v := range l.versions {
		if !slices.Contains(ours, v) {
			return fmt.Errorf("its cniVersion %q is not known here: %s are", v, strings.Join(ours, ", "))
		}
	}
	return nil
}

// others are the types of the plugins that are not ours.
func (l list) others() []string {
	var kinds []string
	for _, p := range l.plugins {
		if p.kind != Type {
			kinds = append(kinds, p.kind)
		}
	}
	return kinds
}

// overtaken reports whether we are in the list as we are to be, behind another plugin, and not the last.
func (l list) overtaken(s Settings) bool {
	ours, err := json.Marshal(entry{Type: Type, Settings: s})
	at := slices.IndexFunc(l.plugins, func(p element) bool { return p.kind == Type })
	return err == nil && l.count() == 1 && at > 0 && at < len(l.plugins)-1 && bytes.Equal(compact(l.text[l.plugins[at].start:l.plugins[at].end]), ours)
}

// compact is JSON without blanks: whoever moves our element may set it otherwise.
func compact(text []byte) []byte {
	var out bytes.Buffer
	if json.Compact(&out, text) != nil {
		return text
	}
	return out.Bytes()
}

// with is the text with us as the last plugin. All other bytes stay as they are.
func (l list) with(s Settings) ([]byte, error) {
	ours, err := json.Marshal(entry{Type: Type, Settings: s})
	if err != nil {
		return nil, fmt.Errorf("encoding our part of a network configuration: %w", err)
	}
	last := l.plugins[len(l.plugins)-1]
	if last.kind == Type && bytes.Equal(l.text[last.start:last.end], ours) && l.count() == 1 {
		return l.text, nil
	}
	clean, err := readList(l.without())
	if err != nil {
		return nil, err
	}
	if clean.count() == len(clean.plugins) {
		return nil, fmt.Errorf("the only plugin of the network configuration list is %s: there is none to give pods addresses", Type)
	}
	end := clean.plugins[len(clean.plugins)-1].end
	return join(clean.text[:end], []byte(",\n    "), ours, clean.text[end:]), nil
}

// count is how often we are in the list.
func (l list) count() int {
	n := 0
	for _, p := range l.plugins {
		if p.kind == Type {
			n++
		}
	}
	return n
}

// without is the text without us. What [list.with] has made becomes what it was before, to the byte. A list of nothing but us stays: without
// plugins it would be none.
func (l list) without() []byte {
	if l.count() == len(l.plugins) {
		return l.text
	}
	text := l.text
	for i := len(l.plugins) - 1; i >= 0; i-- {
		switch p := l.plugins[i]; {
		case p.kind != Type:
		case i > 0:
			text = join(text[:l.plugins[i-1].end], text[p.end:])
		default:
			text = join(text[:p.start], text[l.next():])
		}
	}
	return text
}

// next is where the first plugin stands that is not ours. Ours behind it have been taken out already when it is asked for; those before it go with the first.
func (l list) next() int {
	for _, p := range l.plugins {
		if p.kind != Type {
			return p.start
		}
	}
	return l.plugins[0].start
}

// fromSingle makes a list of the configuration of one plugin, as container runtimes do.
func fromSingle(text []byte) ([]byte, error) {
	var c struct {
		CNIVersion string `json:"cniVersion"`
		Name       string `json:"name"`
		Type       string `json:"type"`
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return nil, fmt.Errorf("reading a network configuration: %w", err)
	}
	if c.Name == "" || c.Type == "" {
		return nil, errors.New("reading a network configuration: it has no name, or no type")
	}
	name, err := json.Marshal(c.Name)
	if err != nil {
		return nil, err
	}
	of, err := json.Marshal(c.CNIVersion)
	if err != nil {
		return nil, err
	}
	return join([]byte("{\n  \"cniVersion\": "), of, []byte(",\n  \"name\": "), name, []byte(",\n  \"plugins\": [\n    "),
		bytes.TrimSpace(text), []byte("\n  ]\n}\n")), nil
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
