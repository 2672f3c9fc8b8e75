package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// gz packs a file as Debian wants its documentation: with the best compression
// and without a name or a time.
func gz(to string, content []byte) error {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := w.Write(content); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, out.Bytes(), 0o644)
}

// manuals writes the manual pages and the completions, by the programs
// themselves: built with the tag man, they write their pages instead.
func (b *builder) manuals() error {
	for program, section := range map[string]string{"tlsmcp": "man1", "tlsmcp-hub": "man8"} {
		pages := filepath.Join(b.work, "pages", program)
		if err := os.MkdirAll(pages, 0o755); err != nil {
			return err
		}
		if err := b.command(nil, "go", "run", "-tags", "man", "./cmd/"+program, pages); err != nil {
			return err
		}
		if err := b.packPages(pages, filepath.Join(b.work, program, "man", section)); err != nil {
			return err
		}
	}
	if err := b.packPages("packaging/man", filepath.Join(b.work, "tlsmcp", "man", "man8")); err != nil {
		return err
	}
	return b.completions()
}

func (b *builder) packPages(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		page, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err != nil {
			return err
		}
		if err := gz(filepath.Join(to, e.Name()+".gz"), page); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) completions() error {
	for _, program := range []string{"tlsmcp", "tlsmcp-hub"} {
		dir := filepath.Join(b.work, program, "completion")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		for shell, name := range map[string]string{"bash": program, "zsh": "_" + program, "fish": program + ".fish"} {
			cmd := exec.Command("go", "run", "-buildvcs=false", "./cmd/"+program, "completion", shell)
			text, err := cmd.Output()
			if err != nil {
				return fmt.Errorf("%s completion %s: %w", program, shell, err)
			}
			if err := os.WriteFile(filepath.Join(dir, shell+"-"+name), text, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

// notices gathers the licences of the modules that the programs are linked from,
// as those licences ask.
func (b *builder) notices() error {
	for what, programs := range map[string][]string{"tlsmcp": {"./cmd/tlsmcp", "./cmd/tlsmcpd"}, "tlsmcp-hub": {"./cmd/tlsmcp-hub"}, "all": {"./cmd/..."}} {
		text, err := notices(programs)
		if err != nil {
			return err
		}
		if err := gz(filepath.Join(b.work, what, "third-party-licenses.txt.gz"), text); err != nil {
			return err
		}
	}
	return nil
}

func notices(roots []string) ([]byte, error) {
	out, err := exec.Command("go", append([]string{"list", "-deps", "-json=Module"}, roots...)...).Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	dirs := map[string]string{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			Module *struct {
				Path, Version, Dir string
				Main               bool
			}
		}
		if err := dec.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
		if m := p.Module; m != nil && !m.Main {
			dirs[m.Path+" "+m.Version] = m.Dir
		}
	}
	var text bytes.Buffer
	root, err := output("go", "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	dirs["The Go standard library"] = root
	for _, module := range sorted(dirs) {
		files, err := licences(dirs[module])
		if err != nil {
			return nil, err
		}
		if len(files) == 0 {
			return nil, fmt.Errorf("%s has no licence in %s", module, dirs[module])
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			fmt.Fprintf(&text, "==== %s: %s\n\n%s\n\n", module, filepath.Base(file), bytes.TrimSpace(content))
		}
	}
	return text.Bytes(), nil
}

// licences are the files of a module's top directory that its licence asks to
// pass on.
func licences(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		name := strings.ToUpper(e.Name())
		is := func(word string) bool { return strings.HasPrefix(name, word) }
		if e.Type()&fs.ModeType == 0 && slices.ContainsFunc([]string{"LICENSE", "LICENCE", "COPYING", "NOTICE", "PATENTS"}, is) && !strings.HasSuffix(name, ".GO") {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	return files, nil
}
