package main

import (
	"regexp"
	"slices"
	"strings"
)

// spdxNames are SPDX's names for the short names of Debian's copyright format. What is missing becomes a reference.
var spdxNames = map[string]string{
	"Apache-2.0": "Apache-2.0", "Artistic": "Artistic-1.0-Perl", "BSD-2-clause": "BSD-2-Clause", "BSD-3-clause": "BSD-3-Clause", "CC0-1.0": "CC0-1.0",
	"FSFAP": "FSFAP", "FSFUL": "FSFUL", "FSFULLR": "FSFULLR", "Expat": "MIT", "MIT": "MIT", "ISC": "ISC", "Zlib": "Zlib", "GFDL-1.3": "GFDL-1.3-only",
	"GPL-1": "GPL-1.0-only", "GPL-1+": "GPL-1.0-or-later", "GPL-2": "GPL-2.0-only", "GPL-2+": "GPL-2.0-or-later",
	"GPL-3": "GPL-3.0-only", "GPL-3+": "GPL-3.0-or-later",
	"LGPL-2": "LGPL-2.0-only", "LGPL-2+": "LGPL-2.0-or-later", "LGPL-2.1": "LGPL-2.1-only", "LGPL-2.1+": "LGPL-2.1-or-later",
	"LGPL-3": "LGPL-3.0-only", "LGPL-3+": "LGPL-3.0-or-later",
}

var (
	licenceField = regexp.MustCompile(`(?m)^License:[ \t]*(\S.*)$`)
	commonText   = regexp.MustCompile(`/usr/share/common-licenses/([A-Za-z0-9.+-]*[A-Za-z0-9+])`)
)

// licence is what a package's copyright file says of its licences. In Debian's machine-readable format all that are named apply, each to some files; of
// other files it is at most known which common texts they refer to, which decides nothing and goes into the comment.
func licence(copyright string, references map[string]string) (declared, comment string) {
	if !strings.HasPrefix(copyright, "Format:") {
		var texts []string
		for _, m := range commonText.FindAllStringSubmatch(copyright, -1) {
			texts = append(texts, m[1])
		}
		slices.Sort(texts)
		if texts = slices.Compact(texts); len(texts) > 0 {
			return "NOASSERTION", "The copyright file is not machine-readable; it refers to " + strings.Join(texts, ", ") + "."
		}
		return "NOASSERTION", "The copyright file is not machine-readable."
	}
	var all []string
	for _, m := range licenceField.FindAllStringSubmatch(copyright, -1) {
		all = append(all, expression(m[1], references))
	}
	slices.Sort(all)
	all = slices.Compact(all)
	for i, one := range all {
		if len(all) > 1 && strings.Contains(one, " OR ") {
			all[i] = "(" + one + ")"
		}
	}
	if len(all) == 0 {
		return "NOASSERTION", "The copyright file names no licence."
	}
	return strings.Join(all, " AND "), ""
}

// expression is the value of a License field, "GPL-2+ or Expat", in SPDX's words. What it does not understand is one reference as a whole.
func expression(text string, references map[string]string) string {
	var terms []string
	for _, word := range strings.Fields(text) {
		switch word {
		case "or":
			terms = append(terms, "OR")
		case "and":
			terms = append(terms, "AND")
		default:
			terms = append(terms, nameOf(word, references))
		}
	}
	for i, term := range terms { // names and operators take turns
		if operator := term == "OR" || term == "AND"; operator != (i%2 == 1) || i == len(terms)-1 && operator {
			return nameOf(text, references)
		}
	}
	return strings.Join(terms, " ")
}

func nameOf(text string, references map[string]string) string {
	if name, ok := spdxNames[text]; ok {
		return name
	}
	reference := "LicenseRef-Debian-" + strings.Trim(notInIDs.ReplaceAllString(strings.ReplaceAll(text, "+", "-or-later"), "-"), "-")
	references[reference] = text
	return reference
}
