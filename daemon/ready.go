package daemon

import (
	"context"
	"time"

	"cyphers.ai/tlsmcp/daemon/admin"
)

// checks is what /readyz shows. What is required is what clients need to be
// let in; the rest is there to be seen.
func (d *Daemon) checks() []admin.Check {
	all := []admin.Check{d.backendCheck(), d.certificateCheck(), d.reloadCheck()}
	if d.link != nil {
		all = append(all, d.hubCheck())
	}
	if err := d.mayRecord(); err != nil {
		all = append(all, admin.Check{Name: "audit log", Required: true, Detail: err.Error()})
	}
	if c, show := d.controlCheck(); show {
		all = append(all, c)
	}
	for _, h := range d.trust.Health() {
		all = append(all, admin.Check{Name: "trust: " + h.Source, OK: h.OK, Detail: h.Detail, Since: h.Since})
	}
	return all
}

// backendCheck looks at the backend itself, within a moment: it is on this
// host.
func (d *Daemon) backendCheck() admin.Check {
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	c := admin.Check{Name: "backend", OK: true, Required: true, Detail: d.backendName()}
	probe := d.proxy.Probe
	if d.gateway != nil {
		probe = d.gateway.Probe
	}
	if err := probe(ctx); err != nil {
		c.OK, c.Detail = false, err.Error()
	}
	return c
}

func (d *Daemon) certificateCheck() admin.Check {
	h, now := d.keys.Current(), d.now()
	health := d.keys.Health()
	if h == nil {
		return admin.Check{Name: "server certificate", Required: true, Since: health.Since, Detail: health.Err.Error()}
	}
	c := admin.Check{
		Name: "server certificate", OK: health.Err == nil, Since: health.Since,
		Detail: "valid until " + h.Leaf.NotAfter.UTC().Format(time.RFC3339),
	}
	if health.Err != nil {
		c.Detail = health.Err.Error()
	} else if health.Warning != "" {
		c.Detail += "; " + health.Warning
	}
	// An old certificate that still serves keeps the daemon ready; one that no
	// client accepts does not.
	c.Required = now.After(h.Leaf.NotAfter) || now.Before(h.Leaf.NotBefore)
	return c
}

func (d *Daemon) reloadCheck() admin.Check {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := admin.Check{Name: "configuration", OK: d.reloaded == nil, Detail: d.config().Path, Since: d.at}
	if d.reloaded != nil {
		c.Detail = "the last reload was refused: " + d.reloaded.Error()
	}
	return c
}
