package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a length of time as the file writes it: "90s", "5m", "24h",
// "30d", or several together, "1h30m". A day is 24 hours.
type Duration time.Duration

// Size is a number of bytes: "1GiB", "64MiB", "4KiB", "512B", or a plain
// number.
type Size int64

// maxDays bounds durations, so that adding one to a date stays a date.
const maxDays = 36500

// ParseDuration reads a Duration. Signs are refused: no key has a use for a
// negative time.
func ParseDuration(s string) (Duration, error) {
	if s == "" || s[0] < '0' || s[0] > '9' {
		return 0, errors.New("is not a duration")
	}
	var days time.Duration
	rest := s
	if head, tail, found := strings.Cut(s, "d"); found {
		n, err := strconv.ParseUint(head, 10, 32)
		if err != nil {
			return 0, errors.New("is not a duration")
		}
		if n > maxDays {
			return 0, fmt.Errorf("is longer than %d days", maxDays)
		}
		days, rest = time.Duration(n)*24*time.Hour, tail
		if tail != "" && (tail[0] < '0' || tail[0] > '9') {
			return 0, errors.New("is not a duration")
		}
	}
	if rest == "" {
		return Duration(days), nil
	}
	d, err := time.ParseDuration(rest)
	if err != nil {
		return 0, errors.New("is not a duration")
	}
	if d > maxDays*24*time.Hour-days {
		return 0, fmt.Errorf("is longer than %d days", maxDays)
	}
	return Duration(days + d), nil
}

// String writes d in the largest unit that holds it whole.
func (d Duration) String() string {
	t := time.Duration(d)
	for _, u := range []struct {
		name string
		unit time.Duration
		from time.Duration
	}{
		{"d", 24 * time.Hour, 48 * time.Hour},
		{"h", time.Hour, time.Hour},
		{"m", time.Minute, time.Minute},
		{"s", time.Second, 0},
	} {
		if t >= u.from && t%u.unit == 0 {
			return strconv.FormatInt(int64(t/u.unit), 10) + u.name
		}
	}
	return t.String()
}

// MarshalText is String.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// sizeUnit is a suffix and what it stands for.
type sizeUnit struct {
	name  string
	bytes int64
}

// sizeUnits lists the units, largest first; "B" is last because the others end
// in it.
func sizeUnits() []sizeUnit {
	return []sizeUnit{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}
}

// parseSize reads a Size. "1GB" is refused, because half of its readers mean
// 10^9 by it and half 2^30.
func parseSize(s string) (Size, error) {
	number, unit := s, int64(1)
	for _, u := range sizeUnits() {
		if head, found := strings.CutSuffix(s, u.name); found {
			number, unit = strings.TrimSuffix(head, " "), u.bytes
			break
		}
	}
	n, err := strconv.ParseUint(number, 10, 63)
	if err != nil {
		return 0, errors.New("is not a size")
	}
	if int64(n) > math.MaxInt64/unit {
		return 0, errors.New("is too large")
	}
	return Size(int64(n) * unit), nil
}

// String writes s in the largest unit that holds it whole.
func (s Size) String() string {
	for _, u := range sizeUnits() {
		if s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return "0B"
}

// MarshalText is String.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
