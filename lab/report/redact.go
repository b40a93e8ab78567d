package report

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"regexp"
	"strings"
)

const redacted = "[redacted]"

var (
	// A key whose end is missing (a cut-off output) hides everything after its beginning.
	pemKey = regexp.MustCompile(`-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----(?s:.*?)(?:-----END (?:[A-Z0-9]+ )*PRIVATE KEY-----|\z)`)
	// Fields of kubeconfigs and of the like, in YAML, JSON and JSON inside JSON. Values shorter than any
	// real secret are left alone, so that "invalid token: expired" still says what it says.
	secretField = regexp.MustCompile(`(?i)((?:client-key-data|id-token|refresh-token|access[-_]token|token|client-secret|password)` +
		`\\?["']?[ \t]*[:=][ \t]*\\?["']?)([A-Za-z0-9._~+/=-]{16,})`)
	bearer = regexp.MustCompile(`(?i)(bearer\s+)[A-Za-z0-9._~+/=-]{16,}`)
	// Of a proxy, for example.
	userinfo = regexp.MustCompile(`(://[^/\s:@"']*:)[^/\s@"']+@`)
	jwt      = regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*`)
	// What may follow the first line of base64 that is broken into lines, in text or in a JSON string.
	nextLine = regexp.MustCompile(`^(?:\s|\\n|\\r)+[A-Za-z0-9+/]{4,}={0,2}`)
)

// Redact replaces what must never stand in a report by "[redacted]": private keys in PEM, base64 of
// them and of files that hold them (Secrets, kubeconfigs), bare keys in base64, tokens and passwords.
// Certificates stay: they are public and the lesson is about them. Where the end of a secret is
// unclear, more is taken away rather than less.
func Redact(text string) string {
	if len(text) < 16 {
		return text // shorter than any secret; most texts are names
	}
	return redact(text, 3)
}

// redact looks depth levels deep into base64: a Secret holds a kubeconfig that holds a key. It runs
// over all evidence, tens of megabytes, so that each costly search is preceded by a cheap one.
func redact(text string, depth int) string {
	if strings.Contains(text, "PRIVATE KEY") {
		text = pemKey.ReplaceAllString(text, redacted)
	}
	if strings.Contains(text, "eyJ") {
		text = jwt.ReplaceAllString(text, redacted)
	}
	lower := strings.ToLower(text)
	has := func(word string) bool { return strings.Contains(lower, word) }
	if has("token") || has("password") || has("client-secret") || has("client-key-data") {
		text = secretField.ReplaceAllString(text, "${1}"+redacted)
	}
	if has("://") && has("@") {
		text = userinfo.ReplaceAllString(text, "${1}"+redacted+"@")
	}
	if has("bearer") {
		text = bearer.ReplaceAllString(text, "${1}"+redacted)
	}
	if depth == 0 {
		return text
	}
	var out strings.Builder
	done := 0
	for start, end := nextRun(text, 0); start >= 0; start, end = nextRun(text, end) {
		if !secret(text[start:end], depth) {
			continue
		}
		for more := nextLine.FindStringIndex(text[end:]); more != nil; more = nextLine.FindStringIndex(text[end:]) {
			end += more[1]
		}
		out.WriteString(text[done:start])
		out.WriteString(redacted)
		done = end
	}
	if done == 0 {
		return text
	}
	out.WriteString(text[done:])
	return out.String()
}

// shortestRun of base64 is 30 bytes: shorter than any key.
const shortestRun = 40

// nextRun finds base64 at or after from, with its padding; start is -1 when there is none.
func nextRun(text string, from int) (start, end int) {
	for i := from; i < len(text); i++ {
		start = i
		for i < len(text) && base64Digit[text[i]] {
			i++
		}
		if i-start >= shortestRun {
			for end = i; end < len(text) && end < i+2 && text[end] == '='; end++ {
			}
			return start, end
		}
	}
	return -1, -1
}

var base64Digit = func() (digits [256]bool) {
	for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/" {
		digits[c] = true
	}
	return digits
}()

// secret says whether base64 hides something to redact. Where it begins is not certain ("path/LS0t…"),
// so all four alignments are tried.
func secret(run string, depth int) bool {
	run = strings.TrimRight(run, "=")
	if isKey(run) {
		return true
	}
	for offset := range 4 {
		data, err := base64.StdEncoding.DecodeString(run[offset : len(run)-(len(run)-offset)%4])
		if err != nil {
			continue
		}
		if bytes.Contains(data, []byte("PRIVATE KEY")) {
			return true
		}
		// Only text is searched further: what is aligned wrongly looks like noise.
		if text := string(data); printable(data[:min(len(data), 48)]) && redact(text, depth-1) != text {
			return true
		}
	}
	return false
}

// isKey recognizes a private key that lost its PEM lines. All kinds are an ASN.1 sequence, whose
// base64 begins with M.
func isKey(run string) bool {
	if run[0] != 'M' {
		return false
	}
	data, err := base64.RawStdEncoding.DecodeString(run)
	if err != nil {
		return false
	}
	if _, err := x509.ParsePKCS8PrivateKey(data); err == nil {
		return true
	}
	if _, err := x509.ParsePKCS1PrivateKey(data); err == nil {
		return true
	}
	_, err = x509.ParseECPrivateKey(data)
	return err == nil
}

func printable(data []byte) bool {
	for _, b := range data {
		if (b < 0x20 && b != '\n' && b != '\r' && b != '\t') || b > 0x7E {
			return false
		}
	}
	return true
}
