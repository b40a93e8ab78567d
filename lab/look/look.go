// Package look is what all HTML files of eastwest have in common: one file that asks nobody for anything, light and dark, on
// paper too, and pictures of a mesh. It needs nothing of this repository.
package look

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"strings"
)

//go:embed look.css
var style string

// Style is what stands in the <style> of every page.
func Style() template.CSS { return template.CSS(style) }

// Color is the number of the color of something that is one of several: there are five colors.
func Color(i int) int { return i % 5 }

// Policy is the Content-Security-Policy of a page with these scripts in it, for its <meta>: the browser runs and shows what the
// file itself holds, and loads nothing. A style that a text brought along is ignored, and so is a script.
func Policy(scripts ...template.JS) string {
	policy := fmt.Sprintf("default-src 'none'; base-uri 'none'; form-action 'none'; style-src %s", Hash(style))
	var hashes []string
	for _, s := range scripts {
		hashes = append(hashes, Hash(string(s)))
	}
	if len(hashes) > 0 {
		policy += "; script-src " + strings.Join(hashes, " ")
	}
	return policy
}

// Hash is how a policy names a style or a script.
func Hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}
