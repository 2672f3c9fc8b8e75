package mcpgate

import (
	"fmt"
	"slices"
	"strings"

	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/identity"
	"cyphers.ai/tlsmcp/pkg/jsonrpc"
)

// policy says who may call what. It is immutable.
//
// Rules are read in their order, and the first that is about the agent and the
// thing decides. A rule with no list of things is about everything. What no
// rule is about is denied, or allowed when the default says so.
type policy struct {
	rules        []rule
	defaultAllow bool
}

type rule struct {
	agents, tools, resources, prompts, methods []string
	allow                                      bool
}

func newPolicy(g *config.MCPGateway) *policy {
	p := &policy{defaultAllow: g.DefaultAllow}
	for _, r := range g.Rules {
		p.rules = append(p.rules, rule{r.Agents, r.Tools, r.Resources, r.Prompts, r.Methods, r.Allow})
	}
	return p
}

// thing is what a call is about.
type thing uint8

const (
	aMethod thing = iota // the method alone
	aTool
	aResource
	aPrompt
)

func (t thing) String() string { return [...]string{"method", "tool", "resource", "prompt"}[t] }

// target is one thing that a message asks for.
type target struct {
	kind thing
	name string
}

// everyday are the methods that whoever may do anything may use: they begin
// and keep a session, and what they list is filtered. A rule that names one of
// them decides about it all the same.
var everyday = []string{
	"initialize", "ping", "server/discover", "logging/setLevel", "completion/complete", "subscriptions/listen",
	"tools/list", "resources/list", "resources/templates/list", "prompts/list",
}

func isEveryday(method string) bool {
	return slices.Contains(everyday, method) || strings.HasPrefix(method, "notifications/")
}

// allows decides about one target of a method.
func (p *policy) allows(agent *identity.Peer, method string, t target) bool {
	someRule := false
	for i := range p.rules {
		r := &p.rules[i]
		if !r.isAbout(agent) {
			continue
		}
		if r.matches(method, t) {
			return r.allow
		}
		someRule = someRule || r.allow
	}
	return p.defaultAllow || someRule && t.kind == aMethod && isEveryday(method)
}

func (r *rule) isAbout(agent *identity.Peer) bool {
	if agent == nil {
		return false // nobody in particular: only the default is about them
	}
	return slices.ContainsFunc(r.agents, func(pattern string) bool {
		return glob(pattern, agent.ID) || agent.CommonName != "" && glob(pattern, agent.CommonName) ||
			agent.Service() != "" && glob(pattern, agent.Service())
	})
}

func (r *rule) matches(method string, t target) bool {
	if len(r.tools)+len(r.resources)+len(r.prompts)+len(r.methods) == 0 {
		return true
	}
	match := func(patterns []string, s string, fits func(pattern, s string) bool) bool {
		return slices.ContainsFunc(patterns, func(p string) bool { return fits(p, s) })
	}
	switch {
	case match(r.methods, method, glob):
		return true
	case t.kind == aTool:
		return match(r.tools, t.name, glob)
	case t.kind == aPrompt:
		return match(r.prompts, t.name, glob)
	case t.kind == aResource:
		return match(r.resources, t.name, resourceGlob)
	}
	return false
}

// glob matches a pattern in which * is any run of characters but slashes, and
// ** any run. "*" alone is everything.
func glob(pattern, s string) bool {
	if pattern == "*" || pattern == "**" {
		return true
	}
	// Going back to the last star of each kind is enough: one that crosses
	// slashes takes whatever one that does not could have taken.
	var i, j int
	star, deep := -1, -1 // offsets behind the last * and **
	var atStar, atDeep int
	for j < len(s) {
		switch {
		case strings.HasPrefix(pattern[i:], "**"):
			i += 2
			deep, atDeep, star = i, j, -1
		case i < len(pattern) && pattern[i] == '*':
			i++
			star, atStar = i, j
		case i < len(pattern) && pattern[i] == s[j]:
			i++
			j++
		case star >= 0 && s[atStar] != '/':
			atStar++
			i, j = star, atStar
		case deep >= 0:
			atDeep++
			i, j, star = deep, atDeep, -1
		default:
			return false
		}
	}
	return strings.Trim(pattern[i:], "*") == ""
}

// resourceGlob is glob for URIs. A wildcard does not stand for an address that
// leads elsewhere than it says.
func resourceGlob(pattern, uri string) bool {
	if pattern == uri {
		return true
	}
	if pattern != "*" && pattern != "**" && wanders(uri) {
		return false
	}
	return glob(pattern, uri)
}

// wanders reports whether a URI has dot segments, or hides slashes, dots or
// backslashes from whoever compares it.
func wanders(uri string) bool {
	lower := strings.ToLower(uri)
	for _, s := range []string{"%2e", "%2f", "%5c", "%00", `\`, "\x00"} {
		if strings.Contains(lower, s) {
			return true
		}
	}
	path, _, _ := strings.Cut(uri, "?")
	path, _, _ = strings.Cut(path, "#")
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			return true
		}
	}
	return false
}

// targetsOf reads what a message of a client asks for. Every target must be
// allowed. The error says what is missing.
func targetsOf(m *jsonrpc.Message) ([]target, error) {
	text := func(kind thing, v jsonrpc.Value, what string) ([]target, error) {
		s, ok := v.Text()
		if !ok || s == "" {
			return nil, fmt.Errorf("%s has no %s", m.Method, what)
		}
		return []target{{kind, s}}, nil
	}
	switch m.Method {
	case "tools/call":
		return text(aTool, m.Param("name"), "params.name")
	case "prompts/get":
		return text(aPrompt, m.Param("name"), "params.name")
	case "resources/read", "resources/subscribe", "resources/unsubscribe":
		return text(aResource, m.Param("uri"), "params.uri")
	case "completion/complete":
		ref := m.Param("ref")
		if key := ref.Variant("type", "name", "uri"); key != "" {
			return nil, fmt.Errorf("%s has params.ref.%s in another case", m.Method, key)
		}
		switch kind, _ := ref.Get("type").Text(); kind {
		case "ref/prompt":
			return text(aPrompt, ref.Get("name"), "params.ref.name")
		case "ref/resource":
			return text(aResource, ref.Get("uri"), "params.ref.uri")
		}
		return nil, fmt.Errorf("%s has no params.ref of a type that is known", m.Method)
	case "subscriptions/listen":
		return listenTargets(m)
	}
	return []target{{aMethod, m.Method}}, nil
}

// listenTargets are the resources that a stream is asked to tell of.
func listenTargets(m *jsonrpc.Message) ([]target, error) {
	const member = "resourceSubscriptions"
	all := []target{{aMethod, m.Method}}
	wanted := m.Param("notifications")
	if key := wanted.Variant(member); key != "" {
		return nil, fmt.Errorf("%s has params.notifications.%s in another case", m.Method, key)
	}
	for uri := range wanted.Get(member).Elements() {
		s, ok := uri.Text()
		if !ok {
			return nil, fmt.Errorf("%s has a resource that is no text", m.Method)
		}
		all = append(all, target{aResource, s})
	}
	return all, nil
}

// list is a method whose answer is filtered.
type list struct {
	member string // of the result
	kind   thing
	key    string // of an element: what it is called by
	use    string // the method that uses it
}

// lists are the filtered answers, by the member of the result. They are told by
// that and not by the method alone: an answer that a stream repeats may belong
// to a request that is long forgotten.
var lists = []list{
	{"tools", aTool, "name", "tools/call"},
	{"resources", aResource, "uri", "resources/read"},
	{"resourceTemplates", aResource, "uriTemplate", "resources/read"},
	{"prompts", aPrompt, "name", "prompts/get"},
}
