package config

import (
	"path/filepath"
	"strings"
)

// packagedDir is where the packages keep configurations, and packagedName the
// name of the first one.
const (
	packagedDir  = "/etc/tlsmcp"
	packagedName = "tlsmcp"
)

// Instance is the name of the sidecar whose configuration a file is, empty for
// the first one of a host and for files elsewhere: tlsmcpd@NAME.service reads
// /etc/tlsmcp/NAME.toml.
func Instance(file string) string {
	abs, err := filepath.Abs(file)
	if err != nil || file == "-" || filepath.Dir(abs) != packagedDir {
		return ""
	}
	name := filepath.Base(abs)
	if name = strings.TrimSuffix(name, filepath.Ext(name)); name == packagedName {
		return ""
	}
	return name
}

// defaultsOf is the file that an empty one of this name stands for. Sidecars on
// one host keep apart what they write: each has directories named after it,
// which every command that reads its file agrees on.
func defaultsOf(file string) File {
	f := defaults()
	if name := Instance(file); name != "" {
		f.State.Dir += "@" + name
		f.Audit.Dir = filepath.Join(f.State.Dir, "audit")
		f.Control.Socket = filepath.Join("/run", packagedName+"@"+name, filepath.Base(f.Control.Socket))
	}
	return f
}
