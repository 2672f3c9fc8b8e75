// Package install writes the entry of an MCP server into the configuration of an
// AI client, and takes it out again. A client's file is a person's: every byte of
// it that is not the entry's stays, comments included, and a copy of what it was
// is left beside it.
package install

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cyphers.ai/tlsmcp/pkg/pki"
)

// Entry is how a client starts an MCP server.
type Entry struct {
	Type    string            `json:"type,omitempty"` // set for the clients that want it
	Command string            `json:"command"`
	Args    []string          `json:"args"`
	Env     map[string]string `json:"env,omitempty"`
}

// ours reports whether an entry starts tlsmcp.
func (e Entry) ours() bool {
	name := strings.ToLower(path.Base(strings.ReplaceAll(e.Command, `\`, "/")))
	return strings.TrimSuffix(name, ".exe") == "tlsmcp" && len(e.Args) > 0 && e.Args[0] == "mcp"
}

// Place is a computer and its user, as far as the places of files go.
type Place struct {
	GOOS    string
	Home    string
	Config  string // Linux: XDG_CONFIG_HOME; Windows: APPDATA. Empty: the usual
	Project string // a directory whose file is meant, instead of the user's
}

func (p Place) join(parts ...string) string {
	if p.GOOS == "windows" {
		return strings.Join(parts, `\`)
	}
	return path.Join(parts...)
}

// config is where programs keep the user's settings.
func (p Place) config() string {
	switch {
	case p.GOOS == "darwin":
		return p.join(p.Home, "Library", "Application Support")
	case p.Config != "":
		return p.Config
	case p.GOOS == "windows":
		return p.join(p.Home, "AppData", "Roaming")
	}
	return p.join(p.Home, ".config")
}

// Clients are the names of the clients that are known.
func Clients() []string { return []string{"claude-desktop", "claude-code", "cursor", "vscode"} }

// client is where a client keeps its servers, and in what form.
type client struct {
	section string
	typed   bool // entries say that they are of type stdio
	file    string
	restart string // what the person does next
}

var (
	// ErrUnknownClient is returned for a client that is not known.
	ErrUnknownClient = errors.New("this client is not known")
	// ErrNoProject is returned for a client that has no file in a project.
	ErrNoProject = errors.New("this client has no configuration in a project")
	// ErrTaken is returned when there is another entry of the name.
	ErrTaken = errors.New("there is another server of this name")
	// ErrNotThere is returned when there is no entry to take out.
	ErrNotThere = errors.New("there is no server of this name")
)

func (p Place) client(name string) (c client, err error) {
	c = client{section: "mcpServers", restart: "start it anew"}
	in := func(user, project string) string {
		if p.Project != "" {
			return p.join(append([]string{p.Project}, strings.Split(project, "/")...)...)
		}
		return user
	}
	switch name {
	case "claude-desktop":
		if p.Project != "" {
			return c, ErrNoProject
		}
		c.file, c.restart = p.join(p.config(), "Claude", "claude_desktop_config.json"), "quit Claude Desktop and start it again"
	case "claude-code":
		c.file, c.restart = in(p.join(p.Home, ".claude.json"), ".mcp.json"), "start a new session; /mcp shows it"
	case "cursor":
		c.file, c.restart = in(p.join(p.Home, ".cursor", "mcp.json"), ".cursor/mcp.json"), "Customize, MCPs in Cursor shows it; start Cursor again if it does not"
	case "vscode":
		c.section, c.typed = "servers", true
		c.file, c.restart = in(p.join(p.config(), "Code", "User", "mcp.json"), ".vscode/mcp.json"), "start it with the command MCP: List Servers"
	default:
		return c, ErrUnknownClient
	}
	return c, nil
}

// Change is what is to be written.
type Change struct {
	File    string
	Before  []byte
	After   []byte
	Restart string // what the person does next

	mode   fs.FileMode
	exists bool
}

// Same reports whether there is nothing to do.
func (c *Change) Same() bool { return c.exists && string(c.Before) == string(c.After) }

// Options say whose file, and which entry.
type Options struct {
	Client string
	Place  Place
	File   string // instead of the client's usual one
	Name   string
	Force  bool // an entry that is not ours is replaced or taken out too
}

// open reads the client's file.
func (o Options) open() (client, *Change, error) {
	cl, err := o.Place.client(o.Client)
	if err != nil {
		return cl, nil, err
	}
	if o.File != "" {
		cl.file = o.File
	}
	c := &Change{File: cl.file, Restart: cl.restart, mode: 0o600}
	if target, err := filepath.EvalSymlinks(c.File); err == nil {
		c.File = target // the link stays one
	}
	info, err := os.Stat(c.File)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return cl, c, nil
	case err != nil:
		return cl, nil, err
	case !info.Mode().IsRegular():
		return cl, nil, fmt.Errorf("%s is no file", c.File)
	}
	c.mode, c.exists = info.Mode().Perm(), true
	if c.Before, err = os.ReadFile(c.File); err != nil {
		return cl, nil, err
	}
	return cl, c, nil
}

// existing is the entry that is there; nil for none.
func existing(text []byte, section, name string) (*Entry, error) {
	if len(strings.TrimSpace(string(text))) == 0 {
		return nil, nil
	}
	root, err := parse(text)
	if err != nil {
		return nil, err
	}
	m := root.find(section)
	if m == nil || m.object == nil {
		return nil, nil
	}
	old := m.object.find(name)
	if old == nil {
		return nil, nil
	}
	e := &Entry{}
	if old.object == nil {
		return e, nil
	}
	for _, part := range old.object.members { // comments may be in between
		raw := text[part.value:part.end]
		switch part.key {
		case "type":
			_ = json.Unmarshal(raw, &e.Type)
		case "command":
			_ = json.Unmarshal(raw, &e.Command)
		case "args":
			_ = json.Unmarshal(raw, &e.Args)
		}
	}
	return e, nil
}

// Install prepares the entry. An entry of the name that is another program's is
// [ErrTaken].
func Install(o Options, e Entry) (*Change, error) {
	cl, c, err := o.open()
	if err != nil {
		return nil, err
	}
	if cl.typed {
		e.Type = "stdio"
	}
	old, err := existing(c.Before, cl.section, o.Name)
	if err == nil && old != nil && !old.ours() && !o.Force {
		err = ErrTaken
	}
	if err == nil && old != nil && old.Type == e.Type && old.Command == e.Command && slices.Equal(old.Args, e.Args) && len(e.Env) == 0 {
		c.After = c.Before
		return c, nil
	}
	if err == nil {
		c.After, err = set(c.Before, cl.section, o.Name, e)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.File, err)
	}
	return c, nil
}

// Uninstall prepares taking the entry out. One that is another program's is
// [ErrTaken].
func Uninstall(o Options) (*Change, error) {
	cl, c, err := o.open()
	if err != nil {
		return nil, err
	}
	old, err := existing(c.Before, cl.section, o.Name)
	switch {
	case err != nil:
	case old == nil:
		err = ErrNotThere
	case !old.ours() && !o.Force:
		err = ErrTaken
	default:
		c.After, err = remove(c.Before, cl.section, o.Name)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.File, err)
	}
	return c, nil
}

// Apply writes the change, and gives the name of the copy of what was there
// before; empty when there was nothing.
func (c *Change) Apply(now time.Time) (backup string, err error) {
	if c.exists {
		// What the person changed meanwhile is not lost.
		if text, err := os.ReadFile(c.File); err != nil || string(text) != string(c.Before) {
			return "", fmt.Errorf("%s has changed while it was being edited; try again", c.File)
		}
		if backup, err = c.keep(c.File + ".backup-" + now.Format("20060102-150405")); err != nil {
			return "", err
		}
	} else if err := os.MkdirAll(filepath.Dir(c.File), 0o755); err != nil {
		return "", err
	}
	return backup, pki.WriteFileAtomic(c.File, c.After, c.mode)
}

// keep writes a copy of what was there before, beside copies that are there already:
// the first of them is the person's own.
func (c *Change) keep(name string) (string, error) {
	for n := 1; ; n++ {
		file := name
		if n > 1 {
			file = fmt.Sprintf("%s-%d", name, n)
		}
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, c.mode)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		_, err = f.Write(c.Before)
		return file, errors.Join(err, f.Sync(), f.Close())
	}
}

// Diff is the change as lines, with some around them.
func (c *Change) Diff() string {
	const around = 3
	a, b := splitLines(c.Before), splitLines(c.After)
	head := 0
	for head < len(a) && head < len(b) && a[head] == b[head] {
		head++
	}
	tail := 0
	for tail < len(a)-head && tail < len(b)-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	var out strings.Builder
	from := max(0, head-around)
	fmt.Fprintf(&out, "--- %s\n+++ %s\n@@ line %d @@\n", c.File, c.File, from+1)
	write := func(mark string, lines []string) {
		for _, l := range lines {
			out.WriteString(mark + l + "\n")
		}
	}
	write(" ", a[from:head])
	write("-", a[head:len(a)-tail])
	write("+", b[head:len(b)-tail])
	write(" ", a[len(a)-tail:min(len(a), len(a)-tail+around)])
	return out.String()
}

func splitLines(text []byte) []string {
	if len(text) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(strings.ReplaceAll(string(text), "\r\n", "\n"), "\n"), "\n")
}
