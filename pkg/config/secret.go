package config

import (
	"fmt"
	"io"
	"log/slog"
)

// redacted is what every secret shows in place of itself.
const redacted = "REDACTED"

// Reveal returns the secret itself. It is the only way to get at it, so a
// search for Reveal finds every place where a secret is used.
func (s Secret) Reveal() string { return string(s) }

// String returns REDACTED, or nothing when there is no secret: whether one is
// set is worth seeing.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// GoString is String, for %#v.
func (s Secret) GoString() string { return s.String() }

// Format is String for every verb. Without it %x and %q would print the
// secret.
func (s Secret) Format(f fmt.State, _ rune) { io.WriteString(f, s.String()) }

// LogValue is String, for slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText is String, for every encoder that takes text.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalJSON is String as a JSON string.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + s.String() + `"`), nil }

// MarshalYAML is String.
func (s Secret) MarshalYAML() (any, error) { return s.String(), nil }
