package mcpgate

import (
	"crypto/x509"
	"strings"
	"testing"

	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/identity"
	"cyphers.ai/tlsmcp/pkg/pki"
)

func TestGlob(t *testing.T) {
	for _, tt := range []struct {
		pattern, s string
		want       bool
	}{
		{"*", "anything/at all", true},
		{"read_*", "read_file", true},
		{"read_*", "read_", true},
		{"read_*", "unread_file", false},
		{"*_file", "read_file", true},
		{"*_file", "read_files", false},
		{"a*b*c", "aXbXbc", true},
		{"a*b*c", "aXcXb", false},
		{"fs/*", "fs/read", true},
		{"fs/*", "fs/a/b", false},
		{"fs/**", "fs/a/b", true},
		{"a/**/z", "a/b/c/z", true},
		{"a/**/z", "a/b/c/y", false},
		{"a/**/x*z", "a/b/xyz/xz", true},
		{"**b*", "a/b/c", false},
		{"**b**", "a/b/c", true},
		{"spiffe://p/agent/*", "spiffe://p/agent/x", true},
		{"spiffe://p/agent/*", "spiffe://p/agent/x/y", false},
		{"", "", true},
		{"", "a", false},
		{"Read", "read", false},
	} {
		if glob(tt.pattern, tt.s) != tt.want {
			t.Errorf("glob(%q, %q) is not %v", tt.pattern, tt.s, tt.want)
		}
	}
	for _, tt := range []struct {
		pattern, uri string
		want         bool
	}{
		{"file:///srv/**", "file:///srv/a/b", true},
		{"file:///srv/**", "file:///srv/../etc/passwd", false},
		{"file:///srv/**", "file:///srv/a/..", false},
		{"file:///srv/**", "file:///srv/%2e%2e/etc/passwd", false},
		{"file:///srv/**", "file:///srv/a%2Fb", false},
		{"file:///srv/**", `file:///srv/..\etc`, false},
		{"file:///srv/**", "file:///srv/..a", true},
		{"file:///srv/%2e", "file:///srv/%2e", true},
		{"*", "file:///srv/../etc", true},
	} {
		if resourceGlob(tt.pattern, tt.uri) != tt.want {
			t.Errorf("resourceGlob(%q, %q) is not %v", tt.pattern, tt.uri, tt.want)
		}
	}
}

func TestPolicy(t *testing.T) {
	ca := must(pki.NewCA(pki.CAOptions{}))(t)
	peer := func(name string, uris ...string) *identity.Peer {
		leaf := must(ca.Issue(pki.LeafOptions{CommonName: name, URIs: uris}))(t)
		return must(identity.FromChain([]*x509.Certificate{leaf.Cert, ca.Cert}, ""))(t)
	}
	claude, other := peer("ops", "spiffe://p.example/agent/claude"), peer("other")
	tool := func(name string) target { return target{aTool, name} }
	for _, tt := range []struct {
		rule   string
		rules  []config.MCPRule
		agent  *identity.Peer
		method string
		target target
		want   bool
	}{
		{"the SPIFFE ID names an agent", []config.MCPRule{{Agents: []string{"spiffe://p.example/agent/*"}, Allow: true}}, claude, "tools/call", tool("x"), true},
		{"so does its last part", []config.MCPRule{{Agents: []string{"claude"}, Allow: true}}, claude, "tools/call", tool("x"), true},
		{"so does the common name", []config.MCPRule{{Agents: []string{"ops"}, Allow: true}}, claude, "tools/call", tool("x"), true},
		{"another agent is not meant", []config.MCPRule{{Agents: []string{"claude"}, Allow: true}}, other, "tools/call", tool("x"), false},
		{"nobody in particular matches no rule", []config.MCPRule{{Agents: []string{"*"}, Allow: true}}, nil, "ping", target{aMethod, "ping"}, false},
		{"the first rule decides: no", []config.MCPRule{{Agents: []string{"*"}, Tools: []string{"del*"}}, {Agents: []string{"*"}, Allow: true}}, other, "tools/call", tool("delete"), false},
		{"the first rule decides: yes", []config.MCPRule{{Agents: []string{"*"}, Tools: []string{"delete"}, Allow: true}, {Agents: []string{"*"}}}, other, "tools/call", tool("delete"), true},
		{"a rule on tools is not about prompts", []config.MCPRule{{Agents: []string{"*"}, Tools: []string{"*"}, Allow: true}}, other, "prompts/get", target{aPrompt, "x"}, false},
		{"a rule on a method is about all it names", []config.MCPRule{{Agents: []string{"*"}, Methods: []string{"prompts/*"}, Allow: true}}, other, "prompts/get", target{aPrompt, "x"}, true},
		{"who may do something may begin", []config.MCPRule{{Agents: []string{"*"}, Tools: []string{"x"}, Allow: true}}, other, "initialize", target{aMethod, "initialize"}, true},
		{"who may do nothing may not", []config.MCPRule{{Agents: []string{"*"}, Tools: []string{"x"}}}, other, "initialize", target{aMethod, "initialize"}, false},
		{"a rule may forbid what is everyday", []config.MCPRule{{Agents: []string{"*"}, Methods: []string{"prompts/list"}}, {Agents: []string{"*"}, Tools: []string{"x"}, Allow: true}}, other, "prompts/list", target{aMethod, "prompts/list"}, false},
		{"tasks need a rule of their own", []config.MCPRule{{Agents: []string{"*"}, Tools: []string{"*"}, Allow: true}}, other, "tasks/get", target{aMethod, "tasks/get"}, false},
	} {
		if newPolicy(&config.MCPGateway{Rules: tt.rules}).allows(tt.agent, tt.method, tt.target) != tt.want {
			t.Errorf("%s: it is not %v", tt.rule, tt.want)
		}
	}
	if !newPolicy(&config.MCPGateway{DefaultAllow: true}).allows(nil, "x", target{aMethod, "x"}) {
		t.Error("the default allows, and it did not")
	}
}

func FuzzGlob(f *testing.F) {
	f.Add("a*b**c", "aXb/c")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if len(pattern) > 200 || len(s) > 200 {
			return
		}
		if got, want := glob(pattern, s), slowGlob(pattern, s); got != want && pattern != "*" {
			t.Fatalf("glob(%q, %q) is %v", pattern, s, got)
		}
	})
}

// slowGlob is the rule of globs, word for word.
func slowGlob(pattern, s string) bool {
	seen := map[[2]int]bool{}
	var match func(i, j int) bool
	match = func(i, j int) bool {
		key := [2]int{i, j}
		if done, ok := seen[key]; ok {
			return done
		}
		seen[key] = false
		ok := false
		switch {
		case i == len(pattern):
			ok = j == len(s)
		case strings.HasPrefix(pattern[i:], "**"):
			ok = match(i+2, j) || j < len(s) && match(i, j+1)
		case pattern[i] == '*':
			ok = match(i+1, j) || j < len(s) && s[j] != '/' && match(i, j+1)
		default:
			ok = j < len(s) && pattern[i] == s[j] && match(i+1, j+1)
		}
		seen[key] = ok
		return ok
	}
	return match(0, 0)
}
