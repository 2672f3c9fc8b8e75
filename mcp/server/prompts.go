package server

import (
	"context"
	"fmt"
	"strings"

	"github.com/mark3labs/mcp-go/mcp"
)

func (s *Server) addPrompts() {
	s.mcp.AddPrompt(mcp.NewPrompt("fix-domain-tls", mcp.WithPromptTitle("Fix a domain's TLS"), mcp.WithPromptIcons(icon(iconLook)...),
		mcp.WithPromptDescription("Scan a host, explain what is wrong with its TLS, get it a certificate, and scan again to show that it is mended."),
		mcp.WithArgument("domain", mcp.ArgumentDescription("host name, with :PORT if it is not 443"), mcp.RequiredArgument()),
		mcp.WithArgument("service_id", mcp.ArgumentDescription("the service behind it (default: the first part of the name)"))),
		prompt("Fix a domain's TLS", fixDomain))
	s.mcp.AddPrompt(mcp.NewPrompt("contain-compromise", mcp.WithPromptTitle("Cut off a compromised service"), mcp.WithPromptIcons(icon(iconCut)...),
		mcp.WithPromptDescription("Find every certificate of a service that is compromised, revoke them all, and show that its connections are cut."),
		mcp.WithArgument("service_id", mcp.ArgumentDescription("the service or agent that is compromised"), mcp.RequiredArgument()),
		mcp.WithArgument("reason", mcp.ArgumentDescription("why (default: key_compromise)"))),
		prompt("Cut off a compromised service", containCompromise))
	s.mcp.AddPrompt(mcp.NewPrompt("raise-score", mcp.WithPromptTitle("Raise the score"), mcp.WithPromptIcons(icon(iconGauge)...),
		mcp.WithPromptDescription("Read the score, explain what holds it down, apply what helps most, and show that it rose."),
		mcp.WithArgument("target", mcp.ArgumentDescription("the score to reach (default: 90)"))),
		prompt("Raise the score", raiseScore))
}

// prompt makes a prompt's handler of what writes its text. What comes as an
// argument is set off as a value, so that it does not read as an instruction.
func prompt(title string, write func(map[string]string) (string, error)) func(context.Context, mcp.GetPromptRequest) (*mcp.GetPromptResult, error) {
	return func(_ context.Context, r mcp.GetPromptRequest) (*mcp.GetPromptResult, error) {
		text, err := write(r.Params.Arguments)
		if err != nil {
			return nil, err
		}
		return mcp.NewGetPromptResult(title, []mcp.PromptMessage{mcp.NewPromptMessage(mcp.RoleUser, mcp.NewTextContent(text))}), nil
	}
}

// argument is one argument as a value: short, on one line, in quotes.
func argument(args map[string]string, name, absent string) (string, error) {
	v := strings.TrimSpace(args[name])
	if v == "" {
		v = absent
	}
	if v == "" {
		return "", fmt.Errorf("the argument %s is missing", name)
	}
	return fmt.Sprintf("%q", clean(v, 300)), nil
}

func fixDomain(args map[string]string) (string, error) {
	domain, err := argument(args, "domain", "")
	if err != nil {
		return "", err
	}
	first, _, _ := strings.Cut(args["domain"], ".")
	service, err := argument(args, "service_id", first)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf(`Find out what is wrong with the TLS of %[1]s and mend it.

1. Call tlsmcp_scan with target %[1]s. Say in plain words what is wrong, the worst first, and what each finding means for whoever connects.
2. Look at tlsmcp_policy_get for service %[2]s: may a server certificate have this name, and for how long?
3. Tell me what you are going to do, and wait for my answer.
4. Get a certificate: tlsmcp_cert_issue with type "server", service_id %[2]s and the host name in hosts. The key is written on the host; do not ask to see it. If the server makes its own key, ask me for its CSR and pass that instead.
5. Tell me where the files are and which lines of the server's configuration have to change for the certificate and for each other finding (protocol versions, ciphers, and so on). When I say that it is done, go on.
6. Call tlsmcp_scan again and compare: what is mended, what is left.

If a tool refuses, tell me what it says to do instead of trying around it.`, domain, service), nil
}

func containCompromise(args map[string]string) (string, error) {
	service, err := argument(args, "service_id", "")
	if err != nil {
		return "", err
	}
	reason, err := argument(args, "reason", "key_compromise")
	if err != nil {
		return "", err
	}
	return fmt.Sprintf(`The service %[1]s is compromised. Cut it off.

1. Call tlsmcp_cert_list with service_id %[1]s and status "valid"; follow next_cursor to the end.
2. Call tlsmcp_audit_search with source "hub" and service_id %[1]s for the last day: where was it used, from which addresses?
3. Call tlsmcp_revoke_preview with service_id %[1]s. Show me: how many certificates end, which connections on which hosts are cut, and whether we would lock ourselves out. Wait for my answer.
4. Call tlsmcp_cert_revoke with service_id %[1]s and reason %[2]s, and with the confirm_token if the preview gave one. That ends every certificate of the service in one act and blocks new ones. To end single certificates only, preview and revoke each by its id.
5. Check: tlsmcp_cert_list with status "valid" is empty for it, tlsmcp_proxy_status shows its connections gone, and the answer of the revocation says that every connected sidecar has it in force. If one has not, say which.
6. Tell me what was done, when, by log entry number, and what is needed to bring the service back: a new key on a clean host, tlsmcp cert lift --service, and a new certificate.

If a tool refuses, tell me what it says to do instead of trying around it.`, service, reason), nil
}

func raiseScore(args map[string]string) (string, error) {
	target, err := argument(args, "target", "90")
	if err != nil {
		return "", err
	}
	return fmt.Sprintf(`Raise our score to %s or as near as it goes.

1. Call tlsmcp_score. Say what the score is, what holds it down (caps first), and what was not measured.
2. Take the first recommendation. Explain what it changes and what could break, and give me the command or the setting. What you can do with these tools (issue or renew a certificate), offer to do; the rest I do on the host.
3. When it is done, call tlsmcp_score again and compare. If it did not rise, find out why: the row's reason and evidence are there with "checks": true.
4. Go on with the next one until the target is reached, or until what is left is not worth it; say which.

If a tool refuses, tell me what it says to do instead of trying around it.`, target), nil
}
