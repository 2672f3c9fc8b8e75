package scan

import (
	"bytes"
	"slices"

	"cyphers.ai/tlsmcp/pkg/scan/rawtls"
)

// Stages, which are also the subjects that trouble is noted by.
const (
	stageReach    = "reach"
	stageVersions = "versions and suites"
	stageGroups   = "groups"
	stageSession  = "certificate and session"
	stageLegacy   = "legacy extensions"
	stageWeb      = "web"
)

// observation is all that the probes saw. The rules read it.
type observation struct {
	address string           // of the server that answered
	trouble map[string]error // by stage: what kept a part from being measured
	reached bool             // something that speaks TLS answered

	ssl2     *rawtls.SSL2                   // nil: not accepted
	versions map[uint16]bool                // accepted, for those that were measured
	suites   map[uint16][]rawtls.Suite      // accepted, by version, up to TLS 1.2
	modern   []rawtls.Suite                 // accepted, of TLS 1.3
	hellos   map[uint16]*rawtls.ServerHello // one for each accepted version

	curves []uint16 // accepted in TLS 1.2 and older
	groups []uint16 // accepted in TLS 1.3
	dhBits []int    // sizes of primes that were seen
	sha1   *bool    // whether a TLS 1.2 handshake is signed with SHA-1; nil: not measured

	chains    [][][]byte // different certificate chains, as sent
	requested bool       // a client certificate was asked for in some handshake

	first    *handshake              // the best that crypto/tls could get
	sessions map[uint16]*sessionSeen // by version, for TLS 1.2 and 1.3

	compression *bool // nil: not measured
	heartbeat   *bool
	fallback    *bool             // a needless fallback is refused
	sentinels   map[uint16]uint16 // what the random said, by version accepted

	clientAuth *clientAuthSeen // nil: not measured
	web        *webSeen        // nil: no checks for web servers
}

// sessionSeen is what a session of one version leads to.
type sessionSeen struct {
	tickets []rawtls.Ticket
	resumed bool
}

func newObservation() *observation {
	return &observation{
		trouble: map[string]error{}, versions: map[uint16]bool{}, suites: map[uint16][]rawtls.Suite{},
		hellos: map[uint16]*rawtls.ServerHello{}, sessions: map[uint16]*sessionSeen{}, sentinels: map[uint16]uint16{},
	}
}

// flight takes in what every answer tells by the way.
func (o *observation) flight(f *rawtls.Flight) {
	if f == nil {
		return
	}
	o.reached = o.reached || f.Hello != nil || f.Alert != nil
	if f.Request != nil {
		o.requested = true
	}
	if k := f.KeyExchange; k != nil && k.DHBits > 0 && !slices.Contains(o.dhBits, k.DHBits) {
		o.dhBits = append(o.dhBits, k.DHBits)
		slices.Sort(o.dhBits)
	}
	if len(f.Certificates) > 0 && !slices.ContainsFunc(o.chains, func(c [][]byte) bool { return slices.EqualFunc(c, f.Certificates, bytes.Equal) }) {
		o.chains = append(o.chains, f.Certificates)
	}
}

// sentWithMore reports whether a certificate that SSL 2.0 showed alone came with
// its chain elsewhere.
func (o *observation) sentWithMore(leaf []byte) bool {
	return o.ssl2 != nil && bytes.Equal(o.ssl2.Certificate, leaf) &&
		slices.ContainsFunc(o.chains, func(c [][]byte) bool { return len(c) > 1 && bytes.Equal(c[0], leaf) })
}

// measured notes that a version was asked for. When no suite was taken and
// nothing stood in the way, it is not accepted.
func (o *observation) measured(v uint16, trouble error) {
	if _, ok := o.versions[v]; !ok && trouble == nil {
		o.versions[v] = false
	}
}

// accepts reports whether a version is accepted, as far as is known.
func (o *observation) accepts(v uint16) bool { return o.versions[v] }

// highest is the highest accepted version up to most; 0: none.
func (o *observation) highest(most uint16) uint16 {
	for v := most; v >= rawtls.SSL30; v-- {
		if o.versions[v] {
			return v
		}
	}
	return 0
}

// legacySuites are the ids of what a version accepts, of those that fit.
func (o *observation) legacySuites(v uint16, fits func(rawtls.Suite) bool) (ids []uint16) {
	for _, s := range o.suites[v] {
		if fits(s) {
			ids = append(ids, s.ID)
		}
	}
	return ids
}
