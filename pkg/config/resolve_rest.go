package config

import (
	"path"
	"slices"
	"strings"
	"time"
)

// mcp resolves [mcp].
func (r *resolver) mcp(f *FileMCP) MCP {
	m := MCP{
		Enabled:    f.Enabled,
		Transport:  r.oneOf("mcp.transport", f.Transport, "stdio", "http", "sse"),
		SelfSecure: f.SelfSecure,
	}
	s := f.SSEAddress
	if port, ok := strings.CutPrefix(s, "localhost:"); ok {
		s = "127.0.0.1:" + port
	}
	addr, err := addrPort(s)
	if err != nil {
		r.fault("mcp.sse_address", `write it like "127.0.0.1:3001"`, "%v", err)
	}
	m.SSEAddress = addr.String()
	return m
}

// gateway resolves [mcp_gateway].
func (r *resolver) gateway(f *FileMCPGateway) MCPGateway {
	const section = "mcp_gateway."
	g := MCPGateway{
		DefaultAllow: r.oneOf(section+"default", f.Default, "deny", "allow") == "allow",
		PinTools:     r.oneOf(section+"pin_tools", f.PinTools, "off", "warn", "block"),
		LogArguments: r.oneOf(section+"log_arguments", f.LogArguments, "digest", "full", "none"),
		MaxChildren:  int(r.within(section+"max_children", f.MaxChildren, 1, maxCount)),
		ChildIdle:    r.atLeast(section+"child_idle", f.ChildIdle, Duration(1e9)),
		ChildMemory:  int64(f.ChildMemory),
	}
	if f.ChildMemory < 1<<20 {
		r.fault(section+"child_memory", "", "must be at least 1MiB, not %s", f.ChildMemory)
	}
	if g.ChildSocket = f.ChildSocket; f.ChildSocket != "" && (!path.IsAbs(f.ChildSocket) || len(f.ChildSocket) > maxSocketPath) {
		r.fault(section+"child_socket", `write it like "/run/tlsmcp-stdio/session.sock"`, "must name a Unix socket by its absolute path, of at most %d bytes", maxSocketPath)
	}
	calls, per, err := rate(f.Rate)
	if err != nil {
		r.fault(section+"rate", `write it like "10/s", "100/m" or "1000/h"`, "%v", err)
	}
	g.RateCalls, g.RatePer = calls, time.Duration(per)
	for i, s := range r.items(section+"child_paths", f.ChildPaths) {
		how, name, _ := strings.Cut(s, ":")
		if how != "ro" && how != "rw" || !path.IsAbs(name) || strings.ContainsRune(name, 0) {
			r.fault(itemKey(section+"child_paths", i), `write it like "ro:/srv/data" or "rw:/var/cache/x"`,
				"must be ro: or rw: and an absolute path, not %q", s)
			continue
		}
		child := ChildPath{Path: path.Clean(name), Write: how == "rw"}
		if slices.ContainsFunc(g.ChildPaths, func(c ChildPath) bool { return c.Path == child.Path }) {
			r.fault(itemKey(section+"child_paths", i), "keep one", "is there twice: %q", child.Path)
		}
		g.ChildPaths = append(g.ChildPaths, child)
	}
	for i := range f.Rule {
		g.Rules = append(g.Rules, r.rule(itemKey(section+"rule", i), &f.Rule[i]))
	}
	return g
}

// rule resolves one [[mcp_gateway.rule]].
func (r *resolver) rule(key string, f *FileRule) MCPRule {
	rule := MCPRule{
		Agents:    r.texts(key+".agents", f.Agents),
		Tools:     r.texts(key+".tools", f.Tools),
		Resources: r.texts(key+".resources", f.Resources),
		Prompts:   r.texts(key+".prompts", f.Prompts),
		Methods:   r.texts(key+".methods", f.Methods),
		Allow:     f.Effect == "allow",
	}
	if len(f.Agents) == 0 {
		r.fault(key+".agents", `write agents = ["claude-ops"], or ["*"] for every agent`, "is required: a rule is about someone")
	}
	if f.Effect == "" {
		r.fault(key+".effect", `write effect = "allow" or effect = "deny"`, "is required")
	} else {
		r.oneOf(key+".effect", f.Effect, "deny", "allow")
	}
	return rule
}

// audit resolves [audit].
func (r *resolver) audit(f *FileAudit) Audit {
	a := Audit{
		Dir:     r.absolute("audit.dir", f.Dir),
		Keep:    r.atLeast("audit.keep", f.Keep, Duration(time.Minute)),
		MaxSize: int64(f.MaxSize),
		Refuse:  r.oneOf("audit.on_full", f.OnFull, "refuse", "drop") == "refuse",
	}
	if f.MaxSize < 1<<20 {
		r.fault("audit.max_size", "", "must be at least 1MiB, not %s", f.MaxSize)
	}
	for i := range f.Sinks {
		a.Sinks = append(a.Sinks, r.sink(itemKey("audit.sinks", i), &f.Sinks[i]))
	}
	return a
}

// sink resolves one entry of audit.sinks.
func (r *resolver) sink(key string, f *FileSink) AuditSink {
	s := AuditSink{Type: f.Type, Format: f.Format, Address: f.Address}
	if s.Format == "" {
		s.Format = "json"
	}
	r.oneOf(key+".format", s.Format, "json", "cef", "ecs", "ocsf")
	if f.Type == "" {
		r.fault(key+".type", "file, journald, syslog or hub", "is required")
		return s
	}
	r.oneOf(key+".type", f.Type, "file", "journald", "syslog", "hub")
	switch {
	case f.Type == "file" && !path.IsAbs(f.Address):
		r.fault(key+".address", `write it like "/var/log/tlsmcp.json"`, "must be an absolute path with type file, not %q", f.Address)
	case f.Type == "syslog" && f.Address == "":
		r.fault(key+".address", "say where the syslog server is", "is required with type syslog")
	case slices.Contains([]string{"journald", "hub"}, f.Type) && f.Address != "":
		r.fault(key+".address", "remove it", "cannot be used with type %s", f.Type)
	}
	return s
}
