package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestFieldDocsAreCurrent holds the file of every package to the comments of its fields.
func TestFieldDocsAreCurrent(t *testing.T) {
	found := 0
	require.NoError(t, filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != output {
			return err
		}
		found++
		want, err := generate(filepath.Dir(path))
		if err != nil {
			return err
		}
		got, err := os.ReadFile(path)
		assert.Equal(t, string(want), string(got), "%s: run `make generate`", path)
		return err
	}))
	assert.NotZero(t, found)
}

func TestGenerate(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	write(
		"a.go",
		"package a\n\ntype A struct {\n\t// What \"it\" is: "+strings.Repeat("word ", 30)+"\n\t// and more.\n\tOne int `yaml:\"one\"`\n"+
			"\tTwo int `yaml:\"two\"` // Behind.\n\tThree int `yaml:\"three\"`\n\tOut int `yaml:\"-\"` // Left out.\n}\n\ntype B A\n\ntype "+
			"C []A\n\ntype D D\n",
	)
	write("a_test.go", "package a\n\ntype T struct {\n\tOne int `yaml:\"one\"` // A test's.\n}\n")
	text, err := generate(dir)
	require.NoError(t, err)
	for _, want := range []string{"func (A) FieldDocs()", "func (B) FieldDocs()", `"What \"it\" is: word`, `and more."`, `"two": "Behind."`} {
		assert.Contains(t, string(text), want)
	}
	for _, not := range []string{"func (C)", "func (D)", "func (T)", "three", "Left out"} {
		assert.NotContains(t, string(text), not)
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		assert.Less(t, len(line), 140)
	}
}
