package config

import (
	"fmt"
	"iter"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// resolver validates a [File] and builds the [Config] that it means. It goes
// on after a fault with a harmless value, so that one run finds them all.
type resolver struct {
	file     string
	dir      string         // what relative paths are relative to
	lines    map[string]int // of the keys that the file sets
	bad      map[string]bool
	faults   Faults
	warnings Faults
	hostname func() (string, error)
}

// newResolver starts from what the decoder found.
func newResolver(file string, d *decoder, hostname func() (string, error)) *resolver {
	r := &resolver{file: file, lines: d.lines, bad: map[string]bool{}, faults: d.faults, hostname: hostname}
	for _, f := range d.faults {
		r.bad[f.Key] = true
	}
	r.dir = "."
	if file != "-" {
		r.dir = filepath.Dir(file)
	}
	if abs, err := filepath.Abs(r.dir); err == nil {
		r.dir = abs
	}
	return r
}

// set reports whether the file itself sets a key.
func (r *resolver) set(key string) bool {
	_, ok := r.lines[key]
	return ok
}

// line is where a key stands; for one that is absent, where its section does;
// 0 when that is absent too.
func (r *resolver) line(key string) int {
	for {
		if line, ok := r.lines[key]; ok {
			return line
		}
		i := strings.LastIndexAny(key, ".[")
		if i < 0 {
			return 0
		}
		key = key[:i]
	}
}

// fault notes what is wrong with a key, unless something already is: the
// second would be about a value that the file does not hold.
func (r *resolver) fault(key, hint, format string, args ...any) {
	if r.bad[key] {
		return
	}
	r.bad[key] = true
	r.faults = append(r.faults, r.about(key, fmt.Sprintf(format, args...), hint))
}

// warn notes what an operator should know of.
func (r *resolver) warn(key, hint, message string) {
	r.warnings = append(r.warnings, r.about(key, message, hint))
}

// about makes a fault of a key.
func (r *resolver) about(key, message, hint string) Fault {
	return Fault{File: r.file, Line: r.line(key), Key: key, Message: message, Hint: hint}
}

// resolve goes through the file section by section.
func (r *resolver) resolve(f *File) *Config {
	switch {
	case !r.set("version"):
		r.fault("version", "write version = 1", "is missing")
	case f.Version != 1:
		r.fault("version", "this build reads version 1", "must be 1, not %d", f.Version)
	}
	if len(f.Outbound) > 0 {
		r.fault("outbound", "remove every entry", "is not available yet")
	}
	c := &Config{
		ServiceID:  r.serviceID(f.ServiceID),
		Hub:        r.hub(&f.Hub),
		Listen:     r.listen(&f.Listen),
		Backend:    r.backend(&f.Backend),
		ClientCert: r.clientCert(&f.ClientCert),
		MCP:        r.mcp(&f.MCP),
		MCPGateway: r.gateway(&f.MCPGateway),
		Audit:      r.audit(&f.Audit),
		Logging: Logging{
			Level:  r.oneOf("logging.level", f.Logging.Level, "debug", "info", "warn", "error"),
			Pretty: r.oneOf("logging.format", f.Logging.Format, "json", "pretty") == "pretty",
		},
		Control: Control{
			Socket:    r.socket("control.socket", f.Control.Socket),
			Operators: r.texts("control.operators", f.Control.Operators),
			Viewers:   r.texts("control.viewers", f.Control.Viewers),
		},
		StateDir: r.absolute("state.dir", f.State.Dir),
		FIPS:     r.oneOf("fips.mode", f.FIPS.Mode, "off", "on") == "on",
		Landlock: Landlock(r.oneOf("sandbox.landlock", f.Sandbox.Landlock, string(LandlockBestEffort), string(LandlockRequired), string(LandlockOff))),
	}
	if f.Admin.Address != "" {
		c.AdminAddress = r.loopback("admin.address", f.Admin.Address)
	}
	c.MTLS = r.mtls(&f.MTLS, c.Hub.Kind)
	c.ServerCert = r.serverCert(&f.ServerCert, c.Hub.Kind)
	r.gaps()
	return c
}

// serviceID checks the name, or takes the host's.
func (r *resolver) serviceID(id string) string {
	const hint = "letters, digits, dots, dashes and underscores, at most 253 of them"
	from := "holds a character that a service id must not have: %q"
	if id == "" {
		name, err := r.hostname()
		if err != nil || name == "" {
			r.fault("service_id", "set it", "is empty, and the host has no name")
			return ""
		}
		id, from = name, "is empty, and the host's name cannot stand for it: %q"
	}
	if len(id) > 253 || !idChars(id) {
		r.fault("service_id", hint, from, id)
	}
	return id
}

// idChars reports whether s has only letters, digits, '.', '_' and '-'.
func idChars(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool {
		return c != '.' && c != '_' && c != '-' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z')
	})
}

// oneOf checks an enumeration. A wrong value becomes the first one, so that
// what depends on it can be checked.
func (r *resolver) oneOf(key, value string, allowed ...string) string {
	if slices.Contains(allowed, value) {
		return value
	}
	r.fault(key, didYouMean(value, allowed), "must be one of %s, not %q", strings.Join(allowed, ", "), value)
	return allowed[0]
}

// within checks a number.
func (r *resolver) within(key string, value, low, high int64) int64 {
	if value < low || value > high {
		r.fault(key, "", "must be from %d to %d, not %d", low, high, value)
		return low
	}
	return value
}

// atLeast checks a length of time.
func (r *resolver) atLeast(key string, d, low Duration) time.Duration {
	if d < low {
		r.fault(key, "", "must be at least %s, not %s", low, d)
	}
	return time.Duration(d)
}

// items goes through a list of strings, leaving out what is empty or there
// twice after a fault about it.
func (r *resolver) items(key string, list []string) iter.Seq2[int, string] {
	return func(yield func(int, string) bool) {
		for i, s := range list {
			switch {
			case strings.TrimSpace(s) == "":
				r.fault(itemKey(key, i), "remove it", "is empty")
			case strings.TrimSpace(s) != s:
				r.fault(itemKey(key, i), "", "begins or ends with white space: %q", s)
			case slices.Index(list, s) < i:
				r.fault(itemKey(key, i), "remove one", "is there twice: %q", s)
			default:
				if !yield(i, s) {
					return
				}
			}
		}
	}
}

// texts checks a list of strings. A list that is empty becomes nil.
func (r *resolver) texts(key string, list []string) []string {
	var out []string
	for _, s := range r.items(key, list) {
		out = append(out, s)
	}
	return out
}

// each checks the items of a list one by one with check, which returns what an
// item becomes and, if it is wrong, why. Two that become the same are one too
// many.
func (r *resolver) each(key, hint string, list []string, check func(string) (string, error)) []string {
	var out []string
	for i, s := range r.items(key, list) {
		v, err := check(s)
		switch {
		case err != nil:
			r.fault(itemKey(key, i), hint, "%q %v", s, err)
		case slices.Contains(out, v):
			r.fault(itemKey(key, i), "remove one", "is there twice: %q", s)
		default:
			out = append(out, v)
		}
	}
	return out
}

// itemKey is the dotted key of an item of a list.
func itemKey(key string, i int) string { return fmt.Sprintf("%s[%d]", key, i) }

// relative makes a path absolute, from the file's directory on. An empty one
// stays empty.
func (r *resolver) relative(key, name string) string {
	if name == "" {
		return ""
	}
	if strings.ContainsRune(name, 0) {
		r.fault(key, "", "is not a path")
		return ""
	}
	if path.IsAbs(name) {
		return path.Clean(name)
	}
	if filepath.IsAbs(name) {
		return filepath.Clean(name)
	}
	return filepath.Join(r.dir, name)
}

// absolute checks a path that must not depend on where the file is. The rule
// is that of the daemon's system, whichever system checks the file.
func (r *resolver) absolute(key, name string) string {
	if !path.IsAbs(name) || strings.ContainsRune(name, 0) {
		r.fault(key, `begin it with "/"`, "must be an absolute path, not %q", name)
		return ""
	}
	return path.Clean(name)
}

// maxSocketPath is how long the name of a Unix socket may be, in bytes: what
// Linux keeps it in has 108, and the last is a NUL.
const maxSocketPath = 107

// socket checks the path of a Unix socket.
func (r *resolver) socket(key, name string) string {
	if name = r.absolute(key, name); len(name) > maxSocketPath {
		r.fault(key, "", "is longer than the %d bytes that a Unix socket's name may have", maxSocketPath)
	}
	return name
}
