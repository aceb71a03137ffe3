package main

import (
	"debug/buildinfo"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx"
	"github.com/spdx/tools-golang/spdx/v2/common"
)

// content is what the image of one architecture is made of.
type content struct {
	arch    string
	digest  string // of the image, "sha256:..."
	debs    []deb
	tree    tree // of the packages, with their copyright files
	program string
}

// bill lists what the images are made of: SPDX 2.3.
func bill(r release, digest string, contents []content) (*spdx.Document, error) {
	doc := &spdx.Document{
		SPDXVersion: spdx.Version, DataLicense: spdx.DataLicense, SPDXIdentifier: "DOCUMENT", DocumentName: "ringfence " + r.version,
		DocumentNamespace: "https://github.com/ringfence-io/ringfence/spdx/" + url.PathEscape(r.version) + "/" + strings.TrimPrefix(digest, "sha256:"),
		CreationInfo: &spdx.CreationInfo{
			Creators: []common.Creator{{CreatorType: "Organization", Creator: "The Ringfence authors"}, {CreatorType: "Tool", Creator: "ringfence-hack-image"}},
			Created:  r.created.UTC().Format(time.RFC3339),
		},
	}
	references := map[string]string{} // licences that SPDX has no name for: identifier to name
	for _, c := range contents {
		image := imagePackage(r, c)
		doc.Packages = append(doc.Packages, image)
		relate(doc, "DOCUMENT", "DESCRIBES", image.PackageSPDXIdentifier)
		for _, d := range c.debs {
			p := debPackage(c, d, references)
			doc.Packages = append(doc.Packages, p)
			relate(doc, image.PackageSPDXIdentifier, "CONTAINS", p.PackageSPDXIdentifier)
		}
		if err := addModules(doc, image.PackageSPDXIdentifier, c); err != nil {
			return nil, err
		}
	}
	var ids []string
	for id := range references {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		doc.OtherLicenses = append(doc.OtherLicenses, &spdx.OtherLicense{
			LicenseIdentifier: id, LicenseName: references[id],
			ExtractedText: "As the copyright files of the Debian packages say that refer to it: /usr/share/doc/PACKAGE/copyright in the image.",
		})
	}
	return doc, nil
}

func relate(doc *spdx.Document, a common.ElementID, how string, b common.ElementID) {
	doc.Relationships = append(doc.Relationships, &spdx.Relationship{
		RefA: common.MakeDocElementID("", string(a)), RefB: common.MakeDocElementID("", string(b)), Relationship: how,
	})
}

func imagePackage(r release, c content) *spdx.Package {
	return &spdx.Package{
		PackageName: "ringfence", PackageSPDXIdentifier: id("image", c.arch), PackageVersion: r.version, PrimaryPackagePurpose: "CONTAINER",
		PackageDownloadLocation: "NOASSERTION", PackageLicenseConcluded: "NOASSERTION", PackageLicenseDeclared: "Apache-2.0", PackageCopyrightText: "NOASSERTION",
		PackageSupplier:           &common.Supplier{SupplierType: "Organization", Supplier: "The Ringfence authors"},
		PackageChecksums:          []common.Checksum{{Algorithm: common.SHA256, Value: strings.TrimPrefix(c.digest, "sha256:")}},
		PackageExternalReferences: purl("pkg:oci/ringfence@" + url.QueryEscape(c.digest) + "?arch=" + c.arch + "&tag=" + url.QueryEscape(r.version)),
	}
}

func debPackage(c content, d deb, references map[string]string) *spdx.Package {
	copyright, _ := c.tree.readFile("usr/share/doc/" + d.Name + "/copyright")
	declared, comment := licence(string(copyright), references)
	return &spdx.Package{
		PackageName: d.Name, PackageSPDXIdentifier: id("deb", c.arch, d.Name), PackageVersion: d.Version,
		PackageDownloadLocation: "http://deb.debian.org/debian/" + d.Path, PackageFileName: d.Path, PackageHomePage: d.Home,
		PackageSupplier:         &common.Supplier{SupplierType: "Organization", Supplier: d.Maker},
		PackageChecksums:        []common.Checksum{{Algorithm: common.SHA256, Value: d.SHA256}},
		PackageSourceInfo:       "built from the Debian source package " + d.Source,
		PackageLicenseConcluded: "NOASSERTION", PackageLicenseDeclared: declared, PackageLicenseComments: comment, PackageCopyrightText: "NOASSERTION",
		PackageExternalReferences: purl("pkg:deb/debian/" + url.PathEscape(d.Name) + "@" + url.QueryEscape(d.Version) + "?arch=" + d.Arch +
			"&distro=debian-12&upstream=" + url.QueryEscape(d.Source)),
	}
}

// addModules lists what our program was linked from, as Go has written it into the file.
func addModules(doc *spdx.Document, image common.ElementID, c content) error {
	info, err := buildinfo.ReadFile(c.program)
	if err != nil {
		return fmt.Errorf("reading what %s was built from: %w", c.program, err)
	}
	add := func(path, version, sum, licence string) {
		comment := ""
		if sum != "" {
			comment = "go.sum: " + sum
		}
		p := &spdx.Package{
			PackageName: path, PackageSPDXIdentifier: id("go", c.arch, path), PackageVersion: version,
			PackageDownloadLocation: "https://proxy.golang.org/" + escaped(path) + "/@v/" + version + ".zip", PackageSourceInfo: comment,
			PackageLicenseConcluded: "NOASSERTION", PackageLicenseDeclared: licence, PackageCopyrightText: "NOASSERTION",
			PackageExternalReferences: purl("pkg:golang/" + path + "@" + url.QueryEscape(version)),
		}
		if sum == "" { // the program itself, and Go
			p.PackageDownloadLocation = "NOASSERTION"
		}
		doc.Packages = append(doc.Packages, p)
		relate(doc, image, "CONTAINS", p.PackageSPDXIdentifier)
	}
	add(info.Main.Path, strings.TrimSuffix(info.Main.Version, "+dirty"), "", "Apache-2.0")
	add("stdlib", strings.TrimPrefix(info.GoVersion, "go"), "", "BSD-3-Clause")
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		add(m.Path, m.Version, m.Sum, "NOASSERTION")
	}
	return nil
}

// escaped is a module's path as proxies have it: capitals are an exclamation mark and a small letter.
func escaped(path string) string {
	return regexp.MustCompile(`[A-Z]`).ReplaceAllStringFunc(path, func(s string) string { return "!" + strings.ToLower(s) })
}

func purl(locator string) []*spdx.PackageExternalReference {
	return []*spdx.PackageExternalReference{{Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: locator}}
}

var notInIDs = regexp.MustCompile(`[^a-zA-Z0-9.-]+`)

func id(parts ...string) common.ElementID {
	return common.ElementID(notInIDs.ReplaceAllString(strings.Join(parts, "-"), "-"))
}

func writeBill(file string, doc *spdx.Document) (err error) {
	out, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("writing the bill of materials: %w", err)
	}
	defer func() {
		if closeErr := out.Close(); err == nil {
			err = closeErr
		}
	}()
	if err := json.Write(doc, out, json.Indent("  ")); err != nil {
		return fmt.Errorf("writing the bill of materials: %w", err)
	}
	return nil
}
