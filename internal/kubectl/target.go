package kubectl

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/ringfence-io/ringfence/enforcer/policy"
	"github.com/ringfence-io/ringfence/internal/query"
)

// target is what a connection goes to, as people write it: TO[:PORT][/PROTOCOL].
type target struct {
	end      string          // as [query.Cluster.Ends] reads it
	port     string          // a number, or a name; empty if none is written
	protocol policy.Protocol // TCP unless another is written
}

// parseTarget reads a target. The last part of a text with slashes is a protocol if a port stands before it, or if it is the word of one and what stands before
// it is a whole end: an address, outside, or a name with its namespace.
func parseTarget(text string) (target, error) {
	t := target{protocol: policy.TCP}
	end, last, ok := cutLast(text, "/")
	protocol := query.ProtocolNamed(strings.ToLower(last))
	known := protocol != 0
	if ok && known && isWhole(end) {
		t.protocol, text = protocol, end
	} else if ok && !known && hasPort(end) {
		return t, fmt.Errorf("%q in %q is no protocol: write tcp, udp, sctp or icmp", last, text)
	}
	t.end = text
	if hasPort(text) {
		t.end, t.port, _ = cutLast(text, ":")
	}
	t.end = strings.Trim(t.end, "[]")
	if t.port != "" && !t.protocol.HasPorts() {
		return t, fmt.Errorf("%q has a port, and %s has none: leave one of the two out", text, t.protocol)
	}
	if t.port == "" || strings.Trim(t.port, "0123456789") != "" {
		return t, nil
	}
	if n, err := strconv.Atoi(t.port); err != nil || n < 1 || n > 65535 {
		return t, fmt.Errorf("port %s in %q is none: write a number from 1 to 65535, or a name", t.port, text)
	}
	return t, nil
}

// hasPort reports whether a port stands at the end of a text. Of an IPv6 address it stands behind brackets.
func hasPort(text string) bool {
	if _, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil {
		return false
	}
	return strings.Contains(text, ":")
}

// isWhole reports whether a text without a protocol is an end by itself.
func isWhole(text string) bool {
	if hasPort(text) || text == outside || strings.Contains(text, "/") {
		return true
	}
	_, err := netip.ParseAddr(strings.Trim(text, "[]"))
	return err == nil
}

// cutLast is [strings.Cut] at the last separator.
func cutLast(text, separator string) (before, after string, found bool) {
	if i := strings.LastIndex(text, separator); i >= 0 {
		return text[:i], text[i+len(separator):], true
	}
	return text, "", false
}
