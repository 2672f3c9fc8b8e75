package score

import (
	"slices"
	"strings"
)

// Alarm is something in a report that somebody should be woken for. Code is
// stable, for programs; an alarm of the same code is the same alarm for as long
// as it lasts.
type Alarm struct {
	Code   string `json:"code"`
	ID     string `json:"id"` // of the row
	Detail string `json:"detail"`
}

// The codes of alarms.
const (
	AlarmInvalid    = "certificate_invalid"    // clients refuse the certificate
	AlarmExpiry     = "certificate_expiry"     // less than a tenth of its life is left
	AlarmRevocation = "revocation_stale"       // what is revoked is not known as of now
	AlarmAccepted   = "revocation_ineffective" // a revoked certificate came in
	AlarmAudit      = "audit_broken"           // the audit chain does not verify
	AlarmKey        = "key_exposed"            // everybody on the host can read the key
)

// Alarms are what there is to be woken for, in the rubric's order. What was
// never there, such as a source of revocations in a service that has none, is a
// matter of the score and not of the night.
func (r *Report) Alarms() []Alarm {
	var all []Alarm
	for _, c := range r.Checks {
		code := ""
		switch {
		case c.ID == "C1" && c.Cap > 0:
			code = AlarmInvalid
		case c.ID == "C2" && c.Result == Fail:
			code = AlarmExpiry
		case c.ID == "R1" && (c.Result == Fail || c.Result == Partial) && r.Facts.Revocation != nil && len(r.Facts.Revocation.Value) > 0:
			code = AlarmRevocation
		case c.ID == "R2" && c.Cap > 0:
			code = AlarmAccepted
		case c.ID == "O1" && c.Cap > 0:
			code = AlarmAudit
		case c.ID == "K1" && c.Cap > 0:
			code = AlarmKey
		}
		if code != "" {
			all = append(all, Alarm{code, c.ID, strings.TrimSuffix(c.Title+": "+c.Evidence, ": ")})
		}
	}
	return all
}

// NewAlarms are those of a report that were not in the one before it, which is
// nil for the first.
func NewAlarms(before, after *Report) []Alarm {
	var known []Alarm
	if before != nil {
		known = before.Alarms()
	}
	return slices.DeleteFunc(after.Alarms(), func(a Alarm) bool {
		return slices.ContainsFunc(known, func(k Alarm) bool { return k.Code == a.Code })
	})
}
