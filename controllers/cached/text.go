package cached

import (
	"fmt"
	"strings"
	"unicode"
)

// Counted is a number of things, in words.
func Counted(n int32, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// MaxMessage is the longest message of a node or of a failing policy, in bytes: what the schema allows.
const MaxMessage = 512

// Plain is what programs and kernels say, as one line that does nothing to a terminal, of at most limit bytes. What is no character that can be seen becomes a
// space, and several spaces one.
func Plain(text string, limit int) string {
	visible := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, " "))
	return Shortened(strings.Join(strings.Fields(visible), " "), limit)
}

// Shortened is text of at most limit bytes, cut at a character.
func Shortened(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit-3], "") + "..."
}

// MaxNote is the longest note of an Event, in bytes.
const MaxNote = 1024
