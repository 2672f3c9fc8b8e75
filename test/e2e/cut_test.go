package e2e

import (
	"slices"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/pkg/pki"
)

// cutWithin is the promise: from the cause, such as a file renamed into place,
// to the connection cut.
const cutWithin = time.Second

// cause takes away alice's right to be in.
type cause struct {
	name   string
	reason string
	over   func(t *testing.T, w *world) set
	// alice is her certificate, and what it takes to come in was measured just
	// before; nil: an ordinary certificate.
	alice func(t *testing.T, w *world, comingIn time.Duration) *pki.Leaf
	// happen makes it so, and returns from when the time counts.
	happen func(t *testing.T, w *world, s *street, alice *pki.Leaf) time.Time
}

func causes() []cause {
	second := func(t *testing.T, w *world, _ time.Duration) *pki.Leaf {
		return must(w.secondCA(t).Issue(pki.LeafOptions{CommonName: "alice"}))(t)
	}
	return []cause{
		{
			name: "a CRL file that is replaced", reason: "revoked",
			over: func(_ *testing.T, w *world) set {
				w.write("ca.crl", w.crl(w.ca, 1))
				return set{"mtls.crl_files": []string{w.path("ca.crl")}}
			},
			happen: func(_ *testing.T, w *world, _ *street, alice *pki.Leaf) time.Time {
				next := w.crl(w.ca, 2, alice.Cert.SerialNumber)
				defer w.write("ca.crl", next)
				return time.Now()
			},
		},
		{
			name: "the end of the certificate's time", reason: "expired",
			alice: func(_ *testing.T, w *world, comingIn time.Duration) *pki.Leaf {
				return w.issue(pki.LeafOptions{CommonName: "alice", NotAfter: time.Now().Truncate(time.Second).Add(5*time.Second + 5*comingIn)})
			},
			happen: func(t *testing.T, _ *world, _ *street, alice *pki.Leaf) time.Time {
				if left := time.Until(alice.Cert.NotAfter); left < 0 {
					t.Fatal("this machine is too slow: the certificate expired before its time")
				}
				return alice.Cert.NotAfter
			},
		},
		{
			name: "a reload without its rule", reason: "not_allowed",
			happen: func(t *testing.T, w *world, s *street, _ *pki.Leaf) time.Time {
				from := time.Now()
				for _, d := range s.daemons() {
					w.edit(d, `"alice", `, ``)
					d.reload(true)
				}
				return from
			},
		},
		{
			name: "a CA file that is replaced by one without its CA", reason: "unknown_ca", alice: second,
			happen: func(_ *testing.T, w *world, _ *street, _ *pki.Leaf) time.Time {
				defer w.write("ca.pem", w.ca.CertPEM())
				return time.Now()
			},
		},
		{
			name: "a reload that names another CA file", reason: "unknown_ca", alice: second,
			happen: func(t *testing.T, w *world, s *street, _ *pki.Leaf) time.Time {
				w.write("other.pem", w.ca.CertPEM())
				from := time.Now()
				for _, d := range s.daemons() {
					w.edit(d, "ca.pem", "other.pem")
					d.reload(true)
				}
				return from
			},
		},
	}
}

func TestLiveConnectionsAreCut(t *testing.T) {
	t.Parallel()
	for _, c := range causes() {
		t.Run("by "+c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			var over set
			if c.over != nil {
				over = c.over(t, w)
			}
			issue := func(_ *testing.T, w *world, _ time.Duration) *pki.Leaf { return w.client("alice") }
			if c.alice != nil {
				issue = c.alice
			}
			w.secondCA(t)
			s := newStreet(w, over)
			bob := w.client("bob")
			began := time.Now()
			theirs := s.open(bob)
			alice := issue(t, w, time.Since(began))
			ours := s.open(alice)
			time.Sleep(parkingTime)
			ours, theirs = append(ours, s.fresh(alice)), append(theirs, s.fresh(bob))
			for _, l := range slices.Concat(ours, theirs) {
				select {
				case <-l.ended:
					t.Fatalf("%s: ended before there was a cause", l.kind)
				default:
				}
			}

			from := c.happen(t, w, s, alice)
			limit := cutWithin
			if c.reason == "expired" {
				limit += time.Second // a certificate is good for the whole of its last second
			}
			mustBeCut(t, ours, from, limit)
			mustLive(t, theirs)
			want := []int{len(ours) - 2, 1, 1} // all but the h2c stream and the tunnel are at the first
			for i, d := range s.daemons() {
				closed := d.expectN(t, want[i], kv{"msg": "connection closed", "identity": "alice"})
				for _, e := range closed {
					if e.str("reason") != c.reason {
						t.Errorf("a connection ended as %q (%s), want %q", e.str("reason"), e.str("detail"), c.reason)
					}
				}
				if n := d.count(kv{"msg": "connection closed", "identity": "bob"}); n != 0 {
					t.Errorf("%d connections of bob ended", n)
				}
				if _, _, err := fetch(w.http(alice, false), d, "/hello"); err == nil {
					t.Error("alice comes in again")
				}
				d.expect(t, kv{"msg": "connection refused", "reason": c.reason})
			}
		})
	}
}
