package pki

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// The files of a saved CA. chainFile holds the CA and its issuers below the root.
const (
	certFile  = "cert.pem"
	keyFile   = "key.pem"
	chainFile = "chain.pem"
	rootFile  = "root.pem"
)

// Save writes the CA to dir/name: cert.pem, key.pem (readable by its owner only), chain.pem and root.pem. They appear
// together or not at all. Saving the same CA again changes nothing. If there is another CA with that name, it stays, and
// the error wraps fs.ErrExist.
func (c *CA) Save(dir, name string) error {
	doing := fmt.Sprintf("saving CA %q as %s", c.Name(), filepath.Join(dir, name))
	if err := checkName(name); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	data, err := c.CACerts()
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	temporary, err := os.MkdirTemp(dir, ".new-*")
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	defer func() { _ = os.RemoveAll(temporary) }()
	for _, f := range []struct {
		name string
		data []byte
		mode fs.FileMode
	}{
		{certFile, data[CACertFile], 0o644},
		{keyFile, data[CAKeyFile], 0o600},
		{chainFile, data[CertChainFile], 0o644},
		{rootFile, data[RootCertFile], 0o644},
	} {
		if err := os.WriteFile(filepath.Join(temporary, f.name), f.data, f.mode); err != nil {
			return fmt.Errorf("%s: %w", doing, err)
		}
	}
	// rename(2) replaces only an empty folder, so the first of two that save at once wins.
	final := filepath.Join(dir, name)
	renamed := os.Rename(temporary, final)
	if renamed == nil {
		return nil
	}
	if _, err := os.Lstat(final); err != nil {
		return fmt.Errorf("%s: %w", doing, renamed)
	}
	there, err := Load(dir, name)
	if err != nil {
		return fmt.Errorf("%s: something else is there: %w", doing, err)
	}
	if !there.cert.Equal(c.cert) {
		return fmt.Errorf("%s: another CA is there (%s): %w", doing, there, fs.ErrExist)
	}
	return nil
}

// Load returns the CA that was saved in dir with that name. The error wraps fs.ErrNotExist if there is none. Damaged files,
// a key that belongs to another certificate, and a chain that does not lead to the root are errors; a CA that has expired
// is not.
func Load(dir, name string) (*CA, error) {
	doing := "loading CA " + filepath.Join(dir, name)
	if err := checkName(name); err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	read := func(file string) ([]*x509.Certificate, error) {
		data, err := os.ReadFile(filepath.Join(dir, name, file))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", doing, err)
		}
		certs, err := Roots(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", doing, file, err)
		}
		return certs, nil
	}
	chain, err := read(chainFile)
	if err != nil {
		return nil, err
	}
	certs, err := read(certFile)
	if err != nil {
		return nil, err
	}
	roots, err := read(rootFile)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(filepath.Join(dir, name, keyFile))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	key, err := parseKey(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", doing, keyFile, err)
	}
	c := &CA{cert: certs[0], root: roots[0], upper: chain[1:], key: func() *ecdsa.PrivateKey { return key }}
	if c.cert.Equal(c.root) {
		c.cert = c.root
	}
	switch {
	case !chain[0].Equal(c.cert):
		return nil, fmt.Errorf("%s: %s does not begin with the certificate of %s", doing, chainFile, certFile)
	case !key.PublicKey.Equal(c.cert.PublicKey):
		return nil, fmt.Errorf("%s: %s does not belong to %s", doing, keyFile, certFile)
	}
	path := append(chain, c.root)
	for i, below := range path[:len(path)-1] {
		if err := below.CheckSignatureFrom(path[i+1]); err != nil {
			return nil, fmt.Errorf("%s: %s does not lead to %s: %w", doing, chainFile, rootFile, err)
		}
	}
	return c, nil
}

// LoadOrMake returns the CA that was saved in dir with that name, or makes one and saves it. Of several callers at once,
// all get the same CA.
func LoadOrMake(dir, name string, newCA func() (*CA, error)) (*CA, error) {
	c, err := Load(dir, name)
	if !errors.Is(err, fs.ErrNotExist) {
		return c, err
	}
	if c, err = newCA(); err != nil {
		return nil, err
	}
	err = c.Save(dir, name)
	if errors.Is(err, fs.ErrExist) {
		return Load(dir, name)
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// checkName refuses names that lead out of the folder, and names like those of folders that are being written.
func checkName(name string) error {
	if name == "" || name[0] == '.' || name != filepath.Base(name) {
		return fmt.Errorf("%q cannot be the name of a folder", name)
	}
	return nil
}

// parseKey reads an EC PRIVATE KEY. Its errors never quote what they read.
func parseKey(data []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("there is no PEM block, or it is damaged")
	}
	if block.Type != "EC PRIVATE KEY" {
		return nil, fmt.Errorf("it is a %s, not an EC PRIVATE KEY", block.Type)
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("the key is damaged")
	}
	return key, nil
}
