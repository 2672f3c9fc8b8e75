package load

import (
	"bytes"
	"errors"
	"math"
	"testing"
	"time"
)

func TestParseHead(t *testing.T) {
	tests := []struct {
		rule string
		in   string
		want responseHead
		n    int
		bad  bool
	}{
		{"a 200 with a length passes", "HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\nxx", responseHead{length: 64}, 39, false},
		{"names in any case of letters", "HTTP/1.1 200 OK\r\ncontent-length:64\r\nCONNECTION: Close\r\n\r\n", responseHead{length: 64, closes: true}, 57, false},
		{"keep-alive closes nothing", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", responseHead{}, 62, false},
		{"another status is a failure", "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 64\r\n\r\n", responseHead{}, 0, true},
		{"an answer without a length is a failure", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", responseHead{}, 0, true},
		{"a length that is no number is a failure", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", responseHead{}, 0, true},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			got, n, err := parseHead([]byte(tt.in))
			if (err != nil) != tt.bad || errors.Is(err, errShort) {
				t.Fatalf("error %v, want one: %v", err, tt.bad)
			}
			if got != tt.want || n != tt.n {
				t.Errorf("got %+v of %d bytes, want %+v of %d", got, n, tt.want, tt.n)
			}
		})
	}
}

func FuzzParseHead(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\nxx"))
	f.Add([]byte("HTTP/1.1 200\r\nConnection: close\r\ncontent-length: 0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		h, n, err := parseHead(in)
		if err != nil {
			return
		}
		if n < 4 || n > len(in) || !bytes.HasSuffix(in[:n], []byte("\r\n\r\n")) || h.length < 0 {
			t.Fatalf("head %+v of %d bytes", h, n)
		}
		for cut := range n {
			if _, _, err := parseHead(in[:cut]); !errors.Is(err, errShort) {
				t.Fatalf("the first %d of %d bytes gave %v, want a call for more", cut, n, err)
			}
		}
	})
}

func TestHistogram(t *testing.T) {
	t.Run("every value lies in its bucket, whose edges are within two percent", func(t *testing.T) {
		for _, v := range []uint64{0, 1, 63, 64, 65, 127, 128, 1000, 123456789, math.MaxInt64} {
			i := bucket(v)
			if edge(i) < v || i > 0 && edge(i-1) >= v {
				t.Errorf("%d is in bucket %d, which ends at %d", v, i, edge(i))
			}
			if float64(edge(i))-float64(v) > 0.02*float64(v) {
				t.Errorf("%d is told as %d", v, edge(i))
			}
		}
	})
	t.Run("buckets rise without a gap", func(t *testing.T) {
		for i := range bucket(math.MaxInt64) {
			if got := bucket(edge(i) + 1); got != i+1 {
				t.Fatalf("after bucket %d comes %d", i, got)
			}
		}
	})
	t.Run("quantiles are those of what was added, in two parts", func(t *testing.T) {
		var a, b histogram
		for i := range 1000 {
			h := &a
			if i%3 == 0 {
				h = &b
			}
			h.add(time.Duration(i+1) * time.Microsecond)
		}
		a.merge(&b)
		for q, want := range map[float64]time.Duration{0.5: 500 * time.Microsecond, 0.99: 990 * time.Microsecond, 1: time.Millisecond} {
			if got := a.quantile(q); got < want || got > want+want/50 {
				t.Errorf("quantile %v is %v, want about %v", q, got, want)
			}
		}
	})
	t.Run("nothing has quantiles of zero", func(t *testing.T) {
		if got := new(histogram).quantile(0.99); got != 0 {
			t.Errorf("got %v", got)
		}
	})
}
