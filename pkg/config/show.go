package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Show writes the effective configuration, every key with its default filled
// in, as "toml" or "json". What it writes is a configuration file that means
// the same, apart from secrets: they read REDACTED, and so does every value of
// backend.env, which is where programs are handed theirs.
func (c *Config) Show(w io.Writer, format string) error {
	f := c.effective()
	if len(f.Backend.Env) > 0 {
		f.Backend.Env = maps.Clone(f.Backend.Env)
		for name := range f.Backend.Env {
			f.Backend.Env[name] = redacted
		}
	}
	var out []byte
	switch format {
	case "toml":
		var b strings.Builder
		writeTable(&b, "", reflect.ValueOf(f).Elem())
		out = []byte(b.String())
	case "json":
		var err error
		if out, err = json.MarshalIndent(f, "", "  "); err != nil {
			return fmt.Errorf("show configuration: %w", err)
		}
		// JSON leaves DEL as it is and YAML, which JSON comes back as, refuses it.
		out = append(bytes.ReplaceAll(out, []byte("\x7f"), []byte(`\u007f`)), '\n')
	default:
		return fmt.Errorf("show configuration: unknown format %q", format)
	}
	if _, err := w.Write(out); err != nil {
		return fmt.Errorf("show configuration: %w", err)
	}
	return nil
}

// Reloadable lists the dotted keys that differ between two configurations and
// whose change takes effect only at a restart. It is empty when a reload is
// enough.
func Reloadable(old, new *Config) []string {
	was, is := map[string]any{}, map[string]any{}
	leaves(was, "", reflect.ValueOf(old.effective()).Elem())
	leaves(is, "", reflect.ValueOf(new.effective()).Elem())
	var keys []string
	for key, value := range was {
		if !reflect.DeepEqual(value, is[key]) && !reloadable(key) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// leaves collects the values of all keys of v.
func leaves(into map[string]any, section string, v reflect.Value) {
	for _, f := range fieldsOf(v.Type()) {
		field := v.Field(f.index)
		if field.Kind() == reflect.Struct {
			leaves(into, join(section, f.name), field)
			continue
		}
		into[join(section, f.name)] = field.Interface()
	}
}

// effective is the file that stands for c with nothing left to defaults.
func (c *Config) effective() *File {
	f := &File{
		Version:   1,
		ServiceID: c.ServiceID,
		Hub: FileHub{
			URL: c.Hub.URL, Socket: c.Hub.Socket, CAFile: c.Hub.CAFile, AuthTokenFile: c.Hub.AuthTokenFile,
			AuthToken: c.Hub.AuthToken, SyncInterval: Duration(c.Hub.SyncInterval),
		},
		Listen:     c.effectiveListen(),
		Backend:    c.effectiveBackend(),
		MTLS:       c.effectiveMTLS(),
		ServerCert: c.effectiveServerCert(),
		ClientCert: FileClientCert{Duration(c.ClientCert.DefaultTTL), Duration(c.ClientCert.MaxTTL)},
		MCP:        FileMCP{c.MCP.Enabled, c.MCP.Transport, c.MCP.SSEAddress, c.MCP.SelfSecure},
		MCPGateway: c.effectiveGateway(),
		Audit: FileAudit{
			Dir: c.Audit.Dir, Keep: Duration(c.Audit.Keep), MaxSize: Size(c.Audit.MaxSize),
			OnFull: choose(c.Audit.Refuse, "refuse", "drop"), Sinks: []FileSink{},
		},
		Logging: FileLogging{c.Logging.Level, choose(c.Logging.Pretty, "pretty", "json")},
		Control: FileControl{c.Control.Socket, list(c.Control.Operators), list(c.Control.Viewers)},
		State:   FileState{c.StateDir},
		FIPS:    FileFIPS{choose(c.FIPS, "on", "off")},
		Sandbox: FileSandbox{string(c.Landlock)},
	}
	switch c.Hub.Kind {
	case HubNone:
		f.Hub.URL = "none"
	case HubLocal:
		f.Hub.URL = "local"
	}
	if c.AdminAddress.IsValid() {
		f.Admin.Address = c.AdminAddress.String()
	}
	for _, s := range c.Audit.Sinks {
		f.Audit.Sinks = append(f.Audit.Sinks, FileSink(s))
	}
	return f
}

func (c *Config) effectiveListen() FileListen {
	l := &c.Listen
	f := FileListen{
		Address: OneOrMore{}, Protocol: "tls13", ProxyProtocolFrom: []string{},
		MaxConnections: int64(l.MaxConnections), HandshakeTimeout: Duration(l.HandshakeTimeout),
		HeaderTimeout: Duration(l.HeaderTimeout), IdleTimeout: Duration(l.IdleTimeout),
		DrainTimeout: Duration(l.DrainTimeout), MaxHeaderBytes: Size(l.MaxHeaderBytes),
		HandshakesPerIP: int64(l.HandshakesPerIP),
	}
	for _, a := range l.Addresses {
		f.Address = append(f.Address, a.String())
	}
	for _, p := range l.ProxyProtocolFrom {
		f.ProxyProtocolFrom = append(f.ProxyProtocolFrom, p.String())
	}
	return f
}

func (c *Config) effectiveBackend() FileBackend {
	b := &c.Backend
	f := FileBackend{
		Address: b.Address, Protocol: string(b.Protocol), Path: b.Path, Command: list(b.Command), Env: b.Env,
		ConnectTimeout: Duration(b.ConnectTimeout), ResponseTimeout: Duration(b.ResponseTimeout),
		PoolSize: int64(b.PoolSize), IdentityHeaders: []string{}, ProxyProtocol: b.ProxyProtocol,
	}
	if b.Network == "unix" {
		f.Address = "unix:" + b.Address
	}
	if f.Env == nil {
		f.Env = map[string]string{}
	}
	for _, h := range b.IdentityHeaders {
		f.IdentityHeaders = append(f.IdentityHeaders, string(h))
	}
	return f
}

func (c *Config) effectiveMTLS() FileMTLS {
	m := &c.MTLS
	return FileMTLS{
		Mode: string(m.Mode), CAFile: m.CAFile, AllowedServices: list(m.AllowedServices),
		AllowedURIs: list(m.AllowedURIs), AllowedDNS: list(m.AllowedDNS), AllowedOUs: list(m.AllowedOUs),
		Pins: list(m.Pins), AllowAll: m.AllowAll, CRLFiles: list(m.CRLFiles), CRLURLs: list(m.CRLURLs),
		CRLAllowPrivate: m.CRLAllowPrivate, OCSP: m.OCSP, RevocationRefresh: Duration(m.RevocationRefresh),
		RevocationMode: choose(m.Strict, "strict", "best_effort"), MaxStaleness: Duration(m.MaxStaleness),
	}
}

func (c *Config) effectiveServerCert() FileServerCert {
	s := &c.ServerCert
	return FileServerCert{
		Provider: string(s.Provider), CertFile: s.CertFile, KeyFile: s.KeyFile, AutoRenew: s.AutoRenew,
		RenewBefore: Duration(s.RenewBefore), Domains: list(s.Domains), ACMEDirectory: s.ACMEDirectory,
		ACMEEmail: s.ACMEEmail, ACMECAFile: s.ACMECAFile, ACMEHTTPAddress: s.ACMEHTTPAddress,
	}
}

func (c *Config) effectiveGateway() FileMCPGateway {
	g := &c.MCPGateway
	unit := strings.TrimPrefix(Duration(g.RatePer).String(), "1")
	f := FileMCPGateway{
		Default: choose(g.DefaultAllow, "allow", "deny"), PinTools: g.PinTools, LogArguments: g.LogArguments,
		Rate: strconv.Itoa(g.RateCalls) + "/" + unit, MaxChildren: int64(g.MaxChildren),
		ChildIdle: Duration(g.ChildIdle), ChildPaths: []string{}, ChildMemory: Size(g.ChildMemory), ChildSocket: g.ChildSocket, Rule: []FileRule{},
	}
	for _, p := range g.ChildPaths {
		f.ChildPaths = append(f.ChildPaths, choose(p.Write, "rw:", "ro:")+p.Path)
	}
	for _, r := range g.Rules {
		f.Rule = append(f.Rule, FileRule{
			list(r.Agents), list(r.Tools), list(r.Resources), list(r.Prompts), list(r.Methods),
			choose(r.Allow, "allow", "deny"),
		})
	}
	return f
}

// choose is yes or no.
func choose(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}

// list makes an empty list of nil, so that JSON says [] and not null.
func list(s []string) []string { return append([]string{}, s...) }
