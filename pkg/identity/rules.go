package identity

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/event"
)

// Rules say who may come in. They are immutable and safe for concurrent use.
// The zero value lets nobody in.
type Rules struct {
	all      bool
	pins     map[[sha256.Size]byte]string // to the rule's text, as are the others
	services map[string]string
	ous      map[string]string
	dns      map[string]string // lower case
	dnsWild  map[string]string // ".example.com", lower case, from "*.example.com"
	uris     []uriRule
}

type uriRule struct {
	glob *uriGlob
	text string
}

// CompileRules reads the rules of a configuration. All that is wrong with them
// comes back at once.
func CompileRules(m config.MTLS) (*Rules, error) {
	r := &Rules{
		all:      m.AllowAll,
		pins:     make(map[[sha256.Size]byte]string),
		services: make(map[string]string),
		ous:      make(map[string]string),
		dns:      make(map[string]string),
		dnsWild:  make(map[string]string),
	}
	var errs []error
	each := func(key string, values []string, add func(value, text string) error) {
		for _, v := range values {
			text := fmt.Sprintf("%s %q", key, v)
			err := checkText(v)
			if v == "" {
				// An empty name would match every certificate without one.
				err = errors.New("is empty")
			}
			if err == nil {
				err = add(v, text)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("mtls.%s %w", text, err))
			}
		}
	}
	each("allowed_services", m.AllowedServices, func(v, text string) error { r.services[v] = text; return nil })
	each("allowed_ous", m.AllowedOUs, func(v, text string) error { r.ous[v] = text; return nil })
	each("allowed_dns", m.AllowedDNS, r.addDNS)
	each("allowed_uris", m.AllowedURIs, func(v, text string) error {
		g, err := compileGlob(v)
		r.uris = append(r.uris, uriRule{g, text})
		return err
	})
	each("pins", m.Pins, r.addPin)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return r, nil
}

func (r *Rules) addDNS(v, text string) error {
	name, wildcard := strings.CutPrefix(strings.ToLower(v), "*.")
	if name == "" || strings.Contains(name, "*") {
		return errors.New(`has a wildcard elsewhere than as its first label, "*.example.com"`)
	}
	if wildcard {
		r.dnsWild["."+name] = text
	} else {
		r.dns[name] = text
	}
	return nil
}

func (r *Rules) addPin(v, text string) error {
	digits, ok := strings.CutPrefix(v, "sha256:")
	raw, err := hex.DecodeString(digits)
	if !ok || err != nil || len(raw) != sha256.Size {
		return errors.New(`is not "sha256:" and 64 hex digits`)
	}
	r.pins[[sha256.Size]byte(raw)] = text
	return nil
}

// Allow tells whether a peer may come in. If so, reason is empty and rule names
// what let it in, such as `allowed_services "payment-api"`; else detail is a
// sentence that says why not.
//
// Pins narrow: when there are any, some certificate of the verified chain must
// be one of them, and then another rule must match too. Pins alone, with no
// other rule, are enough.
func (r *Rules) Allow(p *Peer) (rule string, reason event.Reason, detail string) {
	var pin string
	if len(r.pins) > 0 {
		var ok bool
		if pin, ok = r.pinned(p); !ok {
			return "", event.PinMismatch, fmt.Sprintf("no certificate in the chain of %q is a pinned one", p.ID)
		}
	}
	if rule, ok := r.match(p); ok {
		return rule, "", ""
	}
	if r.empty() {
		if pin != "" {
			return pin, "", ""
		}
		return "", event.NotAllowed, fmt.Sprintf("%q is not allowed: no rule under [mtls] allows anybody", p.ID)
	}
	return "", event.NotAllowed, fmt.Sprintf("%q is not among those allowed", p.ID)
}

func (r *Rules) pinned(p *Peer) (string, bool) {
	for _, print := range p.prints {
		if text, ok := r.pins[print]; ok {
			return text, true
		}
	}
	return "", false
}

// empty tells that there is no rule besides pins.
func (r *Rules) empty() bool {
	return !r.all && len(r.services)+len(r.ous)+len(r.dns)+len(r.dnsWild)+len(r.uris) == 0
}

// match finds the rule that lets a peer in. Named rules come before allow_all,
// because a name says more in a log.
func (r *Rules) match(p *Peer) (string, bool) {
	// No key of a map is empty, so a name that is absent matches nothing.
	if text, ok := r.services[p.CommonName]; ok {
		return text, true
	}
	if text, ok := r.services[p.service]; ok {
		return text, true
	}
	for _, name := range p.DNS {
		if text, ok := r.services[name]; ok {
			return text, true
		}
	}
	for _, u := range r.uris {
		for _, uri := range p.URIs {
			if u.glob.match(uri) {
				return u.text, true
			}
		}
	}
	for _, name := range p.DNS {
		if text, ok := r.matchDNS(name); ok {
			return text, true
		}
	}
	for _, ou := range p.OUs {
		if text, ok := r.ous[ou]; ok {
			return text, true
		}
	}
	if r.all {
		return "allow_all", true
	}
	return "", false
}

// matchDNS matches a DNS SAN exactly or by a wildcard for its first label. A
// SAN that is a wildcard itself names no one host, so it matches nothing.
func (r *Rules) matchDNS(name string) (string, bool) {
	if len(r.dns)+len(r.dnsWild) == 0 || strings.Contains(name, "*") {
		return "", false
	}
	name = strings.ToLower(name)
	if text, ok := r.dns[name]; ok {
		return text, true
	}
	if i := strings.IndexByte(name, '.'); i > 0 {
		text, ok := r.dnsWild[name[i:]]
		return text, ok
	}
	return "", false
}
