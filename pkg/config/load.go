package config

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"unicode/utf8"

	"cyphers.ai/tlsmcp/pkg/order"
)

// maxFile bounds a configuration file, in bytes.
const maxFile = 1 << 20

// Load reads, decodes and validates the file at path. The error is [Faults]
// when the file was read and is refused, and otherwise wraps what the file
// system said.
func Load(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	c, err := Parse(path, data)
	if err != nil {
		return nil, err
	}
	if c.Path, err = filepath.Abs(path); err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return c, nil
}

// Parse decodes and validates data. The name says the format, YAML for .yaml
// and .yml and TOML for everything else; it is what faults call the file; and
// relative paths in data are relative to its directory. The error is [Faults].
func Parse(name string, data []byte) (*Config, error) {
	return parse(name, data, os.Hostname)
}

// parse is Parse with the source of the host's name.
func parse(name string, data []byte, hostname func() (string, error)) (*Config, error) {
	tree, faults := treeOf(name, data)
	if tree == nil {
		return nil, faults
	}
	d := &decoder{file: name, lines: map[string]int{}, faults: faults}
	f := defaultsOf(name)
	d.decode(tree, "", reflect.ValueOf(&f).Elem(), false)
	r := newResolver(name, d, hostname)
	c := r.resolve(&f)
	if len(r.faults) > 0 {
		return nil, inOrder(r.faults)
	}
	c.warnings = inOrder(r.warnings)
	return c, nil
}

// treeOf parses text of either format. The tree is nil when the text cannot be
// read at all; otherwise faults may still hold repeated keys.
func treeOf(name string, data []byte) (*node, Faults) {
	if len(data) > maxFile {
		return nil, Faults{{File: name, Message: fmt.Sprintf("is larger than %s", Size(maxFile))}}
	}
	if i := notText(data); i >= 0 {
		return nil, Faults{{
			File: name, Line: 1 + bytes.Count(data[:i], []byte("\n")),
			Message: fmt.Sprintf("holds byte 0x%02x, which no text in UTF-8 has here", data[i]),
		}}
	}
	switch strings.ToLower(filepath.Ext(name)) {
	case ".yaml", ".yml":
		return fromYAML(name, data)
	default:
		return fromTOML(name, data)
	}
}

// notText returns where data stops being UTF-8 or holds a control character
// that no configuration needs, or -1. The YAML library refuses most of these
// too, but does not say where. A carriage return belongs before a newline.
func notText(data []byte) int {
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		switch {
		case r == '\t' || r == '\n' || r == '\r' && bytes.HasPrefix(data[i:], []byte("\r\n")):
		case r == utf8.RuneError && size == 1 || r < ' ' || r == 0x7f:
			return i
		}
		i += size
	}
	return -1
}

// inOrder sorts faults as the file has them; what is absent comes last.
func inOrder(faults Faults) Faults {
	order.By(faults, func(a, b Fault) int {
		if (a.Line == 0) != (b.Line == 0) {
			return cmp.Compare(b.Line, a.Line)
		}
		return cmp.Compare(a.Line, b.Line)
	})
	return faults
}
