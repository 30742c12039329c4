package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// The parts of an SPDX 2.3 document that are used: what the linker recorded in
// the program, so that the list cannot differ from what is in it.
type (
	spdxDocument struct {
		Version       string             `json:"spdxVersion"`
		License       string             `json:"dataLicense"`
		ID            string             `json:"SPDXID"`
		Name          string             `json:"name"`
		Namespace     string             `json:"documentNamespace"`
		Creation      spdxCreation       `json:"creationInfo"`
		Packages      []spdxPackage      `json:"packages"`
		Relationships []spdxRelationship `json:"relationships"`
	}
	spdxCreation struct {
		Created  string   `json:"created"`
		Creators []string `json:"creators"`
	}
	spdxPackage struct {
		ID            string         `json:"SPDXID"`
		Name          string         `json:"name"`
		Version       string         `json:"versionInfo"`
		Download      string         `json:"downloadLocation"`
		FilesAnalyzed bool           `json:"filesAnalyzed"`
		Purpose       string         `json:"primaryPackagePurpose"`
		License       string         `json:"licenseDeclared"`
		Concluded     string         `json:"licenseConcluded"`
		Copyright     string         `json:"copyrightText"`
		Checksums     []spdxChecksum `json:"checksums,omitempty"`
		Refs          []spdxRef      `json:"externalRefs,omitempty"`
		Comment       string         `json:"comment,omitempty"`
	}
	spdxChecksum struct {
		Algorithm string `json:"algorithm"`
		Value     string `json:"checksumValue"`
	}
	spdxRef struct {
		Category string `json:"referenceCategory"`
		Type     string `json:"referenceType"`
		Locator  string `json:"referenceLocator"`
	}
	spdxRelationship struct {
		Element string `json:"spdxElementId"`
		Type    string `json:"relationshipType"`
		Related string `json:"relatedSpdxElement"`
	}
)

// sbom lists what is in a program.
func (src source) sbom(p platform, file string) ([]byte, error) {
	info, err := buildinfo.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading what is in %s: %w", file, err)
	}
	program, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(program)
	digest := hex.EncodeToString(sum[:])
	main := moduleOf("SPDXRef-Program", &debug.Module{Path: info.Main.Path, Version: src.version})
	main.Purpose, main.License = "APPLICATION", "Apache-2.0"
	main.Checksums = []spdxChecksum{{"SHA256", digest}}
	main.Comment = "commit " + src.commit
	golang := moduleOf("SPDXRef-Go", &debug.Module{Path: "stdlib", Version: strings.TrimPrefix(info.GoVersion, "go")})
	golang.License = "BSD-3-Clause"
	doc := spdxDocument{
		Version: "SPDX-2.3", License: "CC0-1.0", ID: "SPDXRef-DOCUMENT",
		Name:      fmt.Sprintf("immuclient-%s-%s-%s", src.version, p.os, p.arch),
		Namespace: "urn:sha256:" + digest,
		Creation:  spdxCreation{src.time.Format(time.RFC3339), []string{"Tool: immuaudit-release"}},
		Packages:  []spdxPackage{main, golang},
		Relationships: []spdxRelationship{
			{"SPDXRef-DOCUMENT", "DESCRIBES", main.ID}, {main.ID, "DEPENDS_ON", golang.ID},
		},
	}
	slices.SortFunc(info.Deps, func(a, b *debug.Module) int { return strings.Compare(a.Path, b.Path) })
	for i, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		pkg := moduleOf(fmt.Sprintf("SPDXRef-Module-%d", i+1), m)
		doc.Packages = append(doc.Packages, pkg)
		doc.Relationships = append(doc.Relationships, spdxRelationship{main.ID, "DEPENDS_ON", pkg.ID})
	}
	text, err := json.MarshalIndent(doc, "", "  ")
	return append(text, '\n'), err
}

func moduleOf(id string, m *debug.Module) spdxPackage {
	const unsaid = "NOASSERTION"
	p := spdxPackage{
		ID: id, Name: m.Path, Version: m.Version, Download: unsaid, Purpose: "LIBRARY",
		License: unsaid, Concluded: unsaid, Copyright: unsaid,
		Refs: []spdxRef{{"PACKAGE-MANAGER", "purl", "pkg:golang/" + m.Path + "@" + m.Version}},
	}
	if m.Sum != "" {
		p.Comment = "go.sum " + m.Sum
	}
	return p
}
