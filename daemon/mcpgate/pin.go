package mcpgate

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/jsonrpc"
	"cyphers.ai/tlsmcp/pkg/pki"
)

// pins remembers the definition of each tool as it was when it was first seen,
// by its digest. A server that later describes a tool otherwise may mean to talk
// a model into something: the change is told, and in the mode "block" the tool
// is withheld until somebody approves it.
type pins struct {
	mode string // off, warn, block
	file string // empty: nothing is kept
	log  *slog.Logger
	now  func() time.Time
	told func(tool, agent string) // of changes; nil: nobody

	mu    sync.Mutex // guards what follows
	tools map[string]*Pin
	fault error // of the last write
}

// Pin is what is known of a tool's definition.
type Pin struct {
	Tool     string    `json:"tool"`
	Digest   string    `json:"digest"` // approved: hex SHA-256 of the definition
	Since    time.Time `json:"since"`
	Changed  string    `json:"changed,omitempty"` // what the server says now, when that is something else
	ChangeAt time.Time `json:"changed_at,omitzero"`
	// Definition is the new one, for whoever approves it to read.
	Definition json.RawMessage `json:"definition,omitempty"`
}

// maxPins bounds what a server can make us remember.
const maxPins = 10_000

func openPins(dir, mode string, o Options) (*pins, error) {
	p := &pins{mode: mode, log: o.Log, now: o.Now, told: o.ToolChanged, tools: map[string]*Pin{}}
	if mode == "off" {
		return p, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory for tool pins: %w", err)
	}
	p.file = filepath.Join(dir, "pins.json")
	b, err := os.ReadFile(p.file)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	} else if err != nil {
		return nil, fmt.Errorf("read tool pins: %w", err)
	}
	var all []*Pin
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, fmt.Errorf("read tool pins %s: %w; move the file away to approve every tool as it is now", p.file, err)
	}
	for _, pin := range all {
		p.tools[pin.Tool] = pin
	}
	return p, nil
}

// digestOf is the digest of a definition in a form that does not depend on the
// order of keys or on space.
func digestOf(definition jsonrpc.Value) (string, error) {
	var v any
	if err := json.Unmarshal(definition, &v); err != nil {
		return "", err
	}
	b, err := json.Marshal(v) // keys in order
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// show looks at a definition that is on its way to an agent. It reports whether
// the agent may see it.
func (p *pins) show(tool string, definition jsonrpc.Value, agent string) bool {
	if p.mode == "off" {
		return true
	}
	digest, err := digestOf(definition)
	if err != nil {
		return false // it parsed before
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	pin := p.tools[tool]
	switch {
	case pin == nil && len(p.tools) >= maxPins:
		return p.mode != "block"
	case pin == nil:
		p.tools[tool] = &Pin{Tool: tool, Digest: digest, Since: p.now()}
		p.save()
		return true
	case pin.Digest == digest:
		if pin.Changed != "" { // the server took its change back
			pin.Changed, pin.ChangeAt, pin.Definition = "", time.Time{}, nil
			p.save()
		}
		return true
	case pin.Changed != digest:
		pin.Changed, pin.ChangeAt, pin.Definition = digest, p.now(), json.RawMessage(definition)
		p.log.Warn("mcp tool changed", event.KeyTarget, tool, event.KeyDigest, digest, event.KeyReason, string(event.MCPChanged),
			event.KeyIdentity, agent, event.KeyHint, "read the new definition, and approve it if it is right")
		if p.told != nil {
			p.told(tool, agent)
		}
		p.save()
	}
	return p.mode != "block"
}

// blocked reports whether calls of a tool are withheld.
func (p *pins) blocked(tool string) bool {
	if p.mode != "block" {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	pin := p.tools[tool]
	return pin != nil && pin.Changed != ""
}

// save writes the pins. The caller holds p.mu.
func (p *pins) save() {
	all := make([]*Pin, 0, len(p.tools))
	for _, pin := range p.tools {
		all = append(all, pin)
	}
	b, err := json.Marshal(all)
	if err == nil {
		err = pki.WriteFileAtomic(p.file, append(b, '\n'), 0o600)
	}
	if err != nil && p.fault == nil {
		p.log.Error("tool pins cannot be written; after a restart tools are approved as they are then", event.KeyFile, p.file, event.KeyError, err.Error())
	}
	p.fault = err
}

// Pins are the definitions that are remembered.
func (g *Gateway) Pins() []Pin {
	g.pins.mu.Lock()
	defer g.pins.mu.Unlock()
	var all []Pin
	for _, pin := range g.pins.tools {
		all = append(all, *pin)
	}
	return all
}

// Changed counts the tools whose definition waits for approval.
func (g *Gateway) Changed() int {
	g.pins.mu.Lock()
	defer g.pins.mu.Unlock()
	n := 0
	for _, pin := range g.pins.tools {
		if pin.Changed != "" {
			n++
		}
	}
	return n
}

// ErrNoSuchChange is returned by Approve for a tool that has not changed.
var ErrNoSuchChange = errors.New("the tool has no change that waits for approval")

// Approve takes a changed definition for the right one. digest is the one that
// was looked at, so that nothing else is approved by mistake; empty for
// whichever waits.
func (g *Gateway) Approve(tool, digest string) error {
	p := g.pins
	p.mu.Lock()
	defer p.mu.Unlock()
	pin := p.tools[tool]
	if pin == nil || pin.Changed == "" || digest != "" && digest != pin.Changed {
		return fmt.Errorf("approve %q: %w", tool, ErrNoSuchChange)
	}
	*pin = Pin{Tool: tool, Digest: pin.Changed, Since: p.now()}
	p.save()
	return p.fault
}
