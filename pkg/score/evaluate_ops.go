package score

import (
	"cyphers.ai/tlsmcp/pkg/text"
	"fmt"
	"math/bits"
	"time"
)

func clientCertificate(r *row) outcome {
	listeners, ok := use(r, r.facts.ClientAuth)
	if !ok {
		return notMeasured()
	}
	var all, none, optional []string
	for _, l := range listeners {
		switch l.Mode {
		case AuthNone:
			none = append(none, l.Listener+" asks for none")
		case AuthOptional:
			optional = append(optional, l.Listener+" does not insist")
		}
		all = append(all, l.Listener)
	}
	switch {
	case len(none) > 0:
		return r.fail("none", some(append(none, optional...)))
	case len(optional) > 0:
		o := r.partial(some(optional))
		o.cap = "optional"
		return o
	}
	return r.pass("required on " + some(all))
}

func authorisation(r *row) outcome {
	v, ok := use(r, r.facts.Authorization)
	switch {
	case !ok:
		return notMeasured()
	case v.Any:
		return r.fail("", "anybody with a certificate is let in")
	case !v.DefaultDeny:
		return r.fail("", "who matches no rule is let in")
	case len(v.Wide) > 0:
		return r.partial("wide: " + some(v.Wide))
	}
	return r.pass("default deny, " + text.Plural(v.Named, "rule") + " by name")
}

func mtlsShare(r *row) outcome {
	v, ok := use(r, r.facts.MTLSShare)
	if !ok {
		return notMeasured()
	}
	return r.byShare(v, "with a client certificate")
}

// byShare judges a share by the limits pass_percent and partial_percent.
func (r *row) byShare(v Share, what string) outcome {
	if v.Connections == 0 {
		return r.na()
	}
	evidence := fmt.Sprintf("%d of %s %s since %s", v.With, text.Plural(v.Connections, "connection"), what, moment(v.Since))
	switch {
	case atLeastPercent(v, r.rule.Limits["pass_percent"]):
		return r.pass(evidence)
	case atLeastPercent(v, r.rule.Limits["partial_percent"]):
		return r.partial(evidence)
	}
	return r.fail("", evidence)
}

// atLeastPercent compares without rounding and without overflow.
func atLeastPercent(v Share, percent int64) bool {
	h1, l1 := bits.Mul64(uint64(v.With), 100)
	h2, l2 := bits.Mul64(uint64(v.Connections), uint64(percent))
	return h1 > h2 || h1 == h2 && l1 >= l2
}

func upstreamIdentity(r *row) outcome {
	upstreams, ok := use(r, r.facts.Upstreams)
	if !ok {
		return notMeasured()
	}
	if len(upstreams) == 0 {
		return r.na()
	}
	var bad []string
	for _, u := range upstreams {
		if !u.IdentityChecked {
			bad = append(bad, u.Name)
		}
	}
	if len(bad) > 0 {
		return r.fail("unchecked", "not checked: "+some(bad))
	}
	return r.pass(text.Plural(len(upstreams), "upstream") + ", all checked")
}

// revocationFresh is as good as the worst of the sources.
func revocationFresh(r *row) outcome {
	sources, ok := use(r, r.facts.Revocation)
	switch {
	case !ok:
		return notMeasured()
	case len(sources) == 0:
		return r.fail("", "nothing says what is revoked").with("none")
	}
	var worst outcome
	for i, s := range sources {
		if o := r.oneSource(s); i == 0 || o.result.percent() < worst.result.percent() || o.result == Fail && worst.result == Unknown {
			worst = o
		}
	}
	return worst
}

func (r *row) oneSource(s RevocationSource) outcome {
	if s.ConfirmedAt.IsZero() {
		return r.fail("", s.Name+" was never read")
	}
	o := r.byAge(s.Name+" was current", s.ConfirmedAt)
	if !s.NextUpdate.IsZero() && r.now.After(s.NextUpdate) {
		o.evidence += ", its nextUpdate was " + moment(s.NextUpdate)
		if o.result == Pass {
			o.result, o.reason = Partial, "It is past its nextUpdate."
		}
	}
	return o
}

func revocationCanary(r *row) outcome {
	v, ok := use(r, r.facts.Canary)
	if !ok {
		return notMeasured()
	}
	if !v.Refused {
		return r.fail("accepted", "the revoked certificate was accepted")
	}
	evidence := "refused " + span(v.AfterSeconds) + " after the revocation"
	switch {
	case v.AfterSeconds <= r.rule.Limits["pass_seconds"]:
		return r.pass(evidence)
	case v.AfterSeconds <= r.rule.Limits["partial_seconds"]:
		return r.partial(evidence)
	}
	return r.fail("", evidence)
}

func keyStorage(r *row) outcome {
	v, ok := use(r, r.facts.KeyStorage)
	switch {
	case !ok:
		return notMeasured()
	case v.Kind != KeyFile:
		return r.pass("in " + map[KeyKind]string{KeyTPM: "a TPM", KeyHSM: "an HSM", KeyMemory: "memory only"}[v.Kind])
	}
	evidence := fmt.Sprintf("%s has mode %04o and owner uid %d", v.Path, v.Mode, v.OwnerUID)
	switch {
	case v.Mode&0o004 != 0:
		return r.fail("world-readable", evidence)
	case v.Mode&^uint32(r.rule.Limits["partial_mode"]) != 0:
		return r.fail("", evidence)
	case !v.OwnUID:
		return r.fail("", evidence+", who is another than runs the service")
	}
	return r.partial(evidence).with("file")
}

func keyRotation(r *row) outcome {
	v, ok := use(r, r.facts.KeyRotation)
	switch {
	case !ok:
		return notMeasured()
	case v.Reused:
		return r.fail("", "the key was in an earlier certificate, in use since "+moment(v.Since))
	}
	return r.byAge("the key came into use", v.Since)
}

func autoRenew(r *row) outcome {
	v, ok := use(r, r.facts.Renewal)
	if !ok {
		return notMeasured()
	}
	failed := ""
	if v.FailureDetail != "" {
		failed = ": " + v.FailureDetail
	}
	switch {
	case !v.Automatic && (v.Provider == "files" || v.Provider == "commercial"):
		return r.fail("", "whoever writes the files renews it").with("provider")
	case !v.Automatic:
		return r.fail("", "nobody renews it")
	case !v.FailingSince.IsZero():
		return r.fail("", "failing since "+moment(v.FailingSince)+failed).with("failing")
	case v.LastFailure.IsZero():
		return r.pass("automatic, no failure known" + since(v.HistorySince))
	}
	ago, ok := r.age(v.LastFailure)
	if !ok {
		return outcome{result: Unknown, evidence: "failed at " + moment(v.LastFailure), reason: "That is in the future: compare the clocks."}
	}
	evidence := "automatic, last failure " + span(ago) + " ago" + failed
	if ago <= r.rule.Limits["quiet_seconds"] {
		return r.partial(evidence)
	}
	return r.pass(evidence)
}

func since(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return " since " + moment(t)
}

func caProtection(r *row) outcome {
	v, ok := use(r, r.facts.CA)
	if !ok {
		return notMeasured()
	}
	detail := ""
	if v.Detail != "" {
		detail = ": " + v.Detail
	}
	if !v.RootOffline {
		return r.fail("", "the root's key is online"+detail)
	}
	return r.pass("the root's key is offline" + detail)
}

func backendIsolation(r *row) outcome {
	v, ok := use(r, r.facts.Backend)
	switch {
	case !ok:
		return notMeasured()
	case v.ReachableOffHost:
		return r.fail("reachable", v.Address+" answers on "+some(v.Tried))
	case len(v.Tried) > 0:
		return r.pass(v.Address + " does not answer on " + some(v.Tried))
	}
	return r.pass(v.Address)
}

func declaredListeners(r *row) outcome {
	v, ok := use(r, r.facts.Listeners)
	switch {
	case !ok:
		return notMeasured()
	case len(v.Extra) > 0:
		return r.fail("", "not declared: "+some(v.Extra))
	}
	return r.pass("listening on " + some(v.Declared))
}

func adminPlane(r *row) outcome {
	listeners, ok := use(r, r.facts.Admin)
	if !ok {
		return notMeasured()
	}
	var open, closed []string
	for _, l := range listeners {
		if l.Loopback || l.MTLS {
			closed = append(closed, l.Address)
		} else {
			open = append(open, l.Address)
		}
	}
	switch {
	case len(open) > 0:
		return r.fail("open", "open: "+some(open))
	case len(closed) == 0:
		return r.pass("there is none")
	}
	return r.pass(some(closed))
}

func auditChain(r *row) outcome {
	v, ok := use(r, r.facts.Audit)
	if !ok {
		return notMeasured()
	}
	detail := ""
	if v.Detail != "" {
		detail = ": " + v.Detail
	}
	switch v.State {
	case AuditBroken:
		return r.fail("broken", "the chain is broken"+detail)
	case AuditGap:
		return r.fail("", "entries are missing"+detail)
	}
	if len(v.Copies) == 0 {
		return r.fail("", "verified, and copied nowhere").with("copy")
	}
	evidence := "verified, the copy (" + some(v.Copies) + ") is " + span(v.LagSeconds) + " behind"
	switch {
	case v.LagSeconds <= r.rule.Limits["pass_seconds"]:
		return r.pass(evidence)
	case v.LagSeconds <= r.rule.Limits["partial_seconds"]:
		return r.partial(evidence).with("behind")
	}
	return r.fail("", evidence).with("behind")
}

// freshFacts looks at when the facts were measured, not at what they say.
func freshFacts(r *row) outcome {
	for _, s := range r.facts.slots() {
		if st := s.fact().stamp(); st.source == SourceDaemon {
			r.used = append(r.used, st)
		}
	}
	oldest, ok := r.measured()
	if !ok {
		return unknown("The daemon has not reported.")
	}
	return r.byAge("the oldest of the daemon's facts was measured", oldest.at)
}

func alertTest(r *row) outcome {
	v, ok := use(r, r.facts.AlertTest)
	switch {
	case !ok:
		return notMeasured()
	case v.DeliveredAt.IsZero():
		return r.fail("", "never tested")
	}
	return r.byAge("a test alert arrived", v.DeliveredAt)
}

func postQuantumOffered(r *row) outcome {
	v, ok := use(r, r.facts.PostQuantum)
	switch {
	case !ok:
		return notMeasured()
	case !v.Hybrid:
		return r.fail("", "a client that offers a hybrid group got "+v.Group)
	}
	return r.pass("negotiated " + v.Group)
}

func postQuantumUsed(r *row) outcome {
	v, ok := use(r, r.facts.PostQuantumShare)
	if !ok {
		return notMeasured()
	}
	return r.byShare(v, "with a hybrid group")
}

func cryptoInventory(r *row) outcome {
	v, ok := use(r, r.facts.Inventory)
	switch {
	case !ok:
		return notMeasured()
	case v.ExportedAt.IsZero():
		return r.fail("", "never exported")
	}
	return r.byAge("exported", v.ExportedAt)
}
