package trust

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"cyphers.ai/tlsmcp/pkg/revoke"
)

// held is what a source of revocation lists has in force. It is a value:
// preparing the next one leaves it as it is.
type held struct {
	entries []revoke.Entry
	current int               // how many of entries, from the first, came with the newest data
	digest  [sha256.Size]byte // of the newest data
}

// next reads new data in place of what is held. On an error nothing of the new
// data counts. The same bytes again change nothing.
//
// whole says that the data must replace every verified list that is held: a
// file may lose a list, because somebody who may edit it took it out; an answer
// from the network may not.
func (h held) next(data []byte, cas *caSet, whole bool) (held, error) {
	digest := sha256.Sum256(data)
	if digest == h.digest && len(h.entries) > 0 {
		return h, nil
	}
	lists, err := revoke.Parse(data)
	if err != nil {
		return h, err
	}
	if err := checkIssuers(cas.certs, lists); err != nil {
		return h, err
	}
	if whole {
		if who := revoke.Missing(h.lists(), lists); who != "" {
			return h, fmt.Errorf("it no longer holds the CRL by %q", who)
		}
	}
	merged, err := revoke.Merge(h.lists(), lists)
	if err != nil {
		return h, err
	}
	n := held{current: len(lists), digest: digest}
	for _, l := range merged {
		e := revoke.Entry{List: l}
		if i := slices.Index(h.lists(), l); i >= 0 {
			e = h.entries[i]
		}
		n.entries = append(n.entries, e)
	}
	return n, nil
}

// confirm notes that a URL said that its newest data is current. What is kept
// besides that data is not confirmed by it.
func (h held) confirm(now time.Time) held {
	h.entries = slices.Clone(h.entries)
	for i := range h.entries[:h.current] {
		h.entries[i].Confirmed = now
	}
	return h
}

func (h held) lists() []*revoke.List {
	lists := make([]*revoke.List, len(h.entries))
	for i, e := range h.entries {
		lists[i] = e.List
	}
	return lists
}

func checkIssuers(cas []*x509.Certificate, lists []*revoke.List) error {
	var errs []error
	for _, l := range lists {
		errs = append(errs, revoke.CheckIssuer(cas, l))
	}
	return errors.Join(errs...)
}

// readCRLFile reads a file of CRLs, up to the size cap.
func readCRLFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, revoke.MaxSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > revoke.MaxSize {
		return nil, fmt.Errorf("it is over %d bytes", revoke.MaxSize)
	}
	return data, nil
}

// condition is whether a source works, and since when. The zero value is one
// that was not tried yet.
type condition struct {
	err   error
	since time.Time
}

// set notes the result of a try and tells whether it is news: another error
// than before, or the first success.
func (c *condition) set(err error, now time.Time) (news bool) {
	same := !c.since.IsZero() && (err == nil) == (c.err == nil) && (err == nil || err.Error() == c.err.Error())
	if c.since.IsZero() || (err == nil) != (c.err == nil) {
		c.since = now
	}
	c.err = err
	return !same
}

// Status is the health of one source, for people and for metrics.
type Status struct {
	Source     string    // "ca_file /etc/…", "crl_file /etc/…", "crl_url http://…", "ocsp http://…"; unique
	OK         bool      // the last try worked, and what is held is not out of date
	Since      time.Time // when it became so; zero: not tried yet
	Detail     string    // what is wrong, also with one that is OK; empty: nothing
	Number     string    // CRL number in decimal; of several, with commas
	NextUpdate time.Time // the earliest of the lists; zero: none says
	Entries    int       // revoked certificates, or CAs
	Revokes    bool      // it says what is revoked; a file of CAs does not
	Confirmed  time.Time // when what it says was last known to be current; zero: never
}

// confirmed is when all of the lists were last known to be current: when their
// URL said so, or else when they were made. Zero: there is none.
func (h held) confirmed() (oldest time.Time) {
	for _, e := range h.entries {
		at := e.List.ThisUpdate()
		if e.Confirmed.After(at) {
			at = e.Confirmed
		}
		if oldest.IsZero() || at.Before(oldest) {
			oldest = at
		}
	}
	return oldest
}

// status sums a source of revocation lists up.
func (h held) status(source string, c condition, now time.Time) Status {
	st := Status{Source: source, OK: c.err == nil && !c.since.IsZero(), Since: c.since, Revokes: true, Confirmed: h.confirmed()}
	var numbers, remarks []string
	if c.err != nil {
		remarks = append(remarks, c.err.Error())
	} else if c.since.IsZero() {
		remarks = append(remarks, "not fetched yet")
	}
	for _, l := range h.lists() {
		st.Entries += l.Len()
		if n := l.Number(); n != "" {
			numbers = append(numbers, n)
		}
		if next := l.NextUpdate(); !next.IsZero() && (st.NextUpdate.IsZero() || next.Before(st.NextUpdate)) {
			st.NextUpdate = next
		}
		if !l.Verified() {
			remarks = append(remarks, fmt.Sprintf("the CRL by %q counts once a client's chain shows that CA: it is not in ca_file", l.Issuer()))
		}
	}
	if !st.NextUpdate.IsZero() && !now.Before(st.NextUpdate) {
		st.OK = false
		remarks = append(remarks, "a CRL should have been replaced "+ago(now, st.NextUpdate))
	}
	st.Number, st.Detail = strings.Join(numbers, ","), strings.Join(remarks, "; ")
	return st
}
