// Runtime is an OCI runtime for hosts whose root lacks CAP_SYS_RESOURCE: it takes that capability out of what a
// container asks for and then becomes runc. Without it every privileged container fails there with "unable to apply
// caps: operation not permitted" (runc 1.1.5 and 1.5.2). It grants nothing and needs nothing but runc on PATH.
//
// scripts/docker-up builds it and gives it to dockerd where it is needed: `dockerd --add-runtime caps=FILE
// --default-runtime caps`.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

const lacking = "CAP_SYS_RESOURCE"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "runtime:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	for _, file := range asks(args) {
		if err := without(file); err != nil {
			return fmt.Errorf("taking %s out of %s: %w", lacking, file, err)
		}
	}
	runc, err := exec.LookPath("runc")
	if err != nil {
		return err
	}
	return syscall.Exec(runc, append([]string{"runc"}, args...), os.Environ())
}

// asks returns the files in which a command line of runc says what a process may do: the bundle's config.json for a
// new container, the file of --process for a process in one that runs.
func asks(args []string) []string {
	value := func(long, short string) string {
		for i, a := range args {
			for _, name := range []string{long, short} {
				if name != "" && a == name && i+1 < len(args) {
					return args[i+1]
				}
				if v, ok := strings.CutPrefix(a, name+"="); name != "" && ok {
					return v
				}
			}
		}
		return ""
	}
	if slices.Contains(args, "create") || slices.Contains(args, "run") || slices.Contains(args, "restore") {
		return []string{filepath.Join(value("--bundle", "-b"), "config.json")}
	}
	if file := value("--process", "-p"); slices.Contains(args, "exec") && file != "" {
		return []string{file}
	}
	return nil
}

// without rewrites a container's or a process's description, keeping every field it does not know.
func without(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil {
		return err
	}
	if inner, ok := all["process"]; ok {
		if all["process"], err = reduced(inner); err != nil {
			return err
		}
		data, err = json.Marshal(all)
	} else {
		data, err = reduced(data)
	}
	if err != nil {
		return err
	}
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	return os.WriteFile(file, data, info.Mode())
}

func reduced(process []byte) ([]byte, error) {
	var p map[string]json.RawMessage
	if err := json.Unmarshal(process, &p); err != nil {
		return nil, err
	}
	if p["capabilities"] == nil {
		return process, nil
	}
	var sets map[string][]string
	if err := json.Unmarshal(p["capabilities"], &sets); err != nil {
		return nil, err
	}
	for name := range sets {
		sets[name] = slices.DeleteFunc(sets[name], func(c string) bool { return c == lacking })
	}
	left, err := json.Marshal(sets)
	if err != nil {
		return nil, err
	}
	p["capabilities"] = left
	return json.Marshal(p)
}
