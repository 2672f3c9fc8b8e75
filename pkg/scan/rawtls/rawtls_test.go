package rawtls

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io"
	"math/big"
	"net"
	"reflect"
	"slices"
	"testing"
	"testing/iotest"
	"time"
)

func certificate(tb testing.TB) tls.Certificate {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"a.test"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		tb.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// recorded makes a handshake between crypto/tls and itself, and gives the tap.
func recorded(tb testing.TB, client, server *tls.Config) *Tap {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer ln.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := ln.Accept()
		if err != nil {
			return
		}
		conn := tls.Server(c, server)
		defer conn.Close()
		if conn.Handshake() == nil {
			io.WriteString(conn, "data")
		}
	}()
	raw, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	defer raw.Close()
	tap := NewTap(raw)
	client.KeyLogWriter, client.InsecureSkipVerify = tap.KeyLog(), true
	conn := tls.Client(tap, client)
	if conn.Handshake() == nil {
		io.Copy(io.Discard, conn)
	}
	<-done
	return tap
}

func TestTapOpensWhatCryptoTLSReads(t *testing.T) {
	cert := certificate(t)
	for _, tt := range []struct {
		rule           string
		client, server *tls.Config
		version        uint16
		wants          bool
		alert          uint8
		tickets        int
	}{
		{"TLS 1.3", &tls.Config{}, &tls.Config{}, TLS13, false, 0, 1},
		{"TLS 1.3 after a HelloRetryRequest", &tls.Config{CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP384}}, &tls.Config{CurvePreferences: []tls.CurveID{tls.CurveP384}}, TLS13, false, 0, 1},
		{"TLS 1.3 without tickets", &tls.Config{}, &tls.Config{SessionTicketsDisabled: true}, TLS13, false, 0, 0},
		{"TLS 1.2", &tls.Config{MaxVersion: tls.VersionTLS12}, &tls.Config{}, TLS12, false, 0, 1},
		{"a client certificate is asked for", &tls.Config{}, &tls.Config{ClientAuth: tls.RequestClientCert}, TLS13, true, 0, 1},
		{"a client certificate is required", &tls.Config{}, &tls.Config{ClientAuth: tls.RequireAnyClientCert}, TLS13, true, 116, 0},
		{"it is required in TLS 1.2", &tls.Config{MaxVersion: tls.VersionTLS12}, &tls.Config{ClientAuth: tls.RequireAnyClientCert}, TLS12, true, 40, 0},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			tt.server.Certificates = []tls.Certificate{cert}
			tt.client.ClientSessionCache = tls.NewLRUClientSessionCache(1) // or it gets no ticket
			f := recorded(t, tt.client, tt.server).Flight()
			if f.Hello == nil || f.Hello.Version != tt.version {
				t.Fatalf("hello %+v, want version %x", f.Hello, tt.version)
			}
			if len(f.Certificates) != 1 || !bytes.Equal(f.Certificates[0], cert.Certificate[0]) {
				t.Errorf("%d certificates", len(f.Certificates))
			}
			if (f.Request != nil) != tt.wants {
				t.Errorf("request %v, want %v", f.Request, tt.wants)
			}
			if len(f.Tickets) != tt.tickets || tt.version == TLS13 && len(f.Tickets) > 0 && f.Tickets[0].LifetimeSeconds != 7*24*3600 {
				t.Errorf("tickets %+v, want %d", f.Tickets, tt.tickets)
			}
			if tt.alert != 0 && (f.Alert == nil || f.Alert.Description != tt.alert || !f.Alert.Fatal) {
				t.Errorf("alert %v, want %d", f.Alert, tt.alert)
			}
		})
	}
}

func TestEachCipherOfTLS13IsOpened(t *testing.T) {
	for _, suite := range []uint16{0x1301, 0x1302, 0x1303} {
		// crypto/tls does not let one choose, so the tap's keys are tried on
		// their own: what one side sealed the other opens.
		secret := bytes.Repeat([]byte{7}, map[uint16]int{0x1301: 32, 0x1302: 48, 0x1303: 32}[suite])
		k := newKeys(suite, secret)
		if k.aead == nil {
			t.Fatalf("no key for %04x", suite)
		}
		plain := append([]byte("hello"), recordHandshake, 0, 0)
		head := []byte{recordApplicationData, 3, 3, 0, byte(len(plain) + k.aead.Overhead())}
		kind, content, ok := newKeys(suite, secret).open(k.aead.Seal(nil, k.iv, plain, head))
		if !ok || kind != recordHandshake || string(content) != "hello" {
			t.Errorf("%04x: %d %q %v", suite, kind, content, ok)
		}
	}
	if newKeys(0x1301, []byte("short")).aead != nil {
		t.Error("a secret of the wrong size gives a key")
	}
}

// TestExpandLabel holds the key derivation to the server's handshake keys of
// RFC 8448, section 3.
func TestExpandLabel(t *testing.T) {
	secret, _ := hex.DecodeString("b67b7d690cc16c4e75e54213cb2d37b4e9c912bcded9105d42befd59d391ad38")
	k := newKeys(0x1301, secret)
	if got := hex.EncodeToString(k.iv); got != "5d313eb2671276ee13000b30" {
		t.Errorf("iv %s", got)
	}
}

func TestAskReadsAnswers(t *testing.T) {
	cert := certificate(t)
	config := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS10}
	ask := func(h *Hello) *Flight {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		go func() {
			s, err := ln.Accept()
			if err != nil {
				return
			}
			defer s.Close()
			tls.Server(s, config).Handshake()
		}()
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		f, err := Ask(c, h)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	f := ask(&Hello{Version: TLS12, Suites: LegacySuites()[:96], Groups: EveryGroup(), Signatures: Signatures(), ServerName: "a.test"})
	if f.Hello == nil || f.Hello.Version != TLS12 || !f.Done || len(f.Certificates) != 1 || f.KeyExchange == nil || f.KeyExchange.Group == 0 ||
		!f.Hello.ExtendedMasterSecret || !f.Hello.RenegotiationInfo || f.Hello.Sentinel() != TLS13 {
		t.Errorf("TLS 1.2: %+v %+v %+v", f, f.Hello, f.KeyExchange)
	}
	f = ask(&Hello{Version: TLS12, Versions: []uint16{TLS13}, Suites: ModernSuites(), Groups: []uint16{24}, Signatures: Signatures()})
	if f.Hello == nil || !f.Hello.Retry || f.Hello.Group != 24 || f.Hello.Version != TLS13 {
		t.Errorf("HelloRetryRequest: %+v", f.Hello)
	}
	f = ask(&Hello{Version: SSL30, Suites: LegacySuites()[:96]})
	if !f.Refused() || f.Alert == nil || f.Alert.Description != 70 {
		t.Errorf("SSL 3.0: %+v", f)
	}
	f = ask(&Hello{Version: TLS12, Suites: []uint16{0x0005}, Groups: EveryGroup(), Signatures: Signatures()})
	if !f.Refused() {
		t.Errorf("RC4: %+v", f)
	}
}

func TestSuitesAreDescribedByTheirNames(t *testing.T) {
	for id, want := range map[uint16]string{
		0x0000: "null static", 0x0001: "null static", 0x0003: "export rc4 static", 0x0004: "rc4 static", 0x0009: "des static", 0x000A: "3des static",
		0x0018: "anon rc4", 0x0034: "anon cbc", 0x002F: "cbc static", 0x009C: "static", 0xC02F: "", 0xC013: "cbc", 0x009E: "", 0xCCA8: "",
		0x1301: "13", 0xC0B4: "null 13", 0x00A8: "static", 0x00AA: "", 0xC01D: "cbc", 0x0008: "export des static", 0xC0B0: "",
	} {
		s := LookupSuite(id)
		var have []string
		for _, p := range []struct {
			is   bool
			name string
		}{{s.Null, "null"}, {s.Anonymous, "anon"}, {s.Export, "export"}, {s.RC4, "rc4"}, {s.DES, "des"}, {s.TripleDES, "3des"}, {s.CBC, "cbc"}, {s.Static, "static"}, {s.TLS13, "13"}} {
			if p.is {
				have = append(have, p.name)
			}
		}
		if got := joined(have); got != want {
			t.Errorf("%s: %q, want %q", s.Name, got, want)
		}
	}
	for _, known := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		if got := LookupSuite(known.ID).Name; got != known.Name {
			t.Errorf("%04x is %s, and crypto/tls says %s", known.ID, got, known.Name)
		}
	}
	all := LegacySuites()
	if slices.Contains(all, 0x1301) || len(slices.Compact(slices.Sorted(slices.Values(all)))) != len(all) || len(all) < 340 {
		t.Errorf("%d suites", len(all))
	}
}

func joined(list []string) (s string) {
	for i, e := range list {
		if i > 0 {
			s += " "
		}
		s += e
	}
	return s
}

func TestGroups(t *testing.T) {
	for id, bits := range map[uint16]int{1: 81, 19: 96, 21: 112, 23: 128, 25: 260, 26: 128, 29: 128, 30: 224, 256: 0, 0x11EC: 0, 41: 0} {
		if got := GroupBits(id); got != bits {
			t.Errorf("%s: %d bits, want %d", GroupName(id), got, bits)
		}
	}
	for id, want := range map[uint16]bool{0x11EC: true, 0x11EB: true, 0x0201: false, 29: false, 0x6399: true} {
		if Hybrid(id) != want {
			t.Errorf("%s: hybrid %v", GroupName(id), !want)
		}
	}
}

// FuzzFlight holds the reader to its own: no panic, no answer that hangs on how
// the bytes came in, and no end without bounds.
func FuzzFlight(f *testing.F) {
	cert := certificate(f)
	for _, most := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		tap := recorded(f, &tls.Config{MaxVersion: most}, &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert})
		f.Add(tap.in)
	}
	f.Add([]byte{21, 3, 1, 0, 2, 2, 40})
	f.Add([]byte("HTTP/1.1 400 Bad Request\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		whole, err := ReadFlight(bytes.NewReader(data))
		slow, slowErr := ReadFlight(iotest.OneByteReader(bytes.NewReader(data)))
		if !reflect.DeepEqual(whole, slow) || (err == nil) != (slowErr == nil) {
			t.Fatalf("whole %+v %v, byte by byte %+v %v", whole, err, slow, slowErr)
		}
		if err != nil && !errors.Is(err, ErrNotTLS) && !errors.Is(err, errMalformed) {
			t.Fatalf("an error without a kind: %v", err)
		}
		if whole.Refused() && whole.Hello != nil {
			t.Fatal("refused and accepted")
		}
		if h := whole.Hello; h != nil {
			LookupSuite(h.Suite)
			h.Sentinel()
		}
	})
}

// FuzzTap does the same for what is opened with secrets. The records cannot be
// forged, so what is inside them is fuzzed: plain, as the reader gets it.
func FuzzTap(f *testing.F) {
	cert := certificate(f)
	tap := recorded(f, &tls.Config{}, &tls.Config{Certificates: []tls.Certificate{cert}})
	f.Add(tap.in, tap.secrets["SERVER_HANDSHAKE_TRAFFIC_SECRET"], tap.secrets["SERVER_TRAFFIC_SECRET_0"], []byte{typeNewSessionTicket, 0, 0, 1, 0})
	f.Fuzz(func(t *testing.T, in, handshake, traffic, inside []byte) {
		openFlight(in, handshake, traffic)
		flight := &Flight{Hello: &ServerHello{Version: TLS13}}
		r := reader{flight: flight}
		endsWithFinished(&r, inside)
		r.record(recordHandshake, inside)
		for _, ticket := range flight.Tickets {
			if ticket.MaxEarlyData > 0 && len(inside) < 16 {
				t.Fatal("early data out of nothing")
			}
		}
	})
}

// FuzzSSL2 reads answers in SSL 2.0.
func FuzzSSL2(f *testing.F) {
	f.Add([]byte{0x80, 14, 4, 0, 1, 0, 2, 0, 0, 0, 3, 0, 0, 1, 0, 128})
	f.Add([]byte{21, 3, 1, 0, 2, 2, 40})
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := ReadSSL2(bytes.NewReader(data))
		if err != nil {
			t.Fatalf("an error where a refusal was due: %v", err)
		}
		if a != nil && len(a.Certificate)+3*len(a.Ciphers) > len(data) {
			t.Fatalf("more than was sent: %+v", a)
		}
	})
}

// TestAHelloShowsTheGroupsThatAHandshakeDoes: for each group and a few servers the
// answer is that of a client that makes the handshake with that group alone.
func TestAHelloShowsTheGroupsThatAHandshakeDoes(t *testing.T) {
	cert := certificate(t)
	groups := []tls.CurveID{tls.X25519MLKEM768, tls.SecP256r1MLKEM768, tls.SecP384r1MLKEM1024, tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521, 9999}
	for rule, server := range map[string]*tls.Config{
		"by default":   {MinVersion: tls.VersionTLS13},
		"one curve":    {CurvePreferences: []tls.CurveID{tls.CurveP384}},
		"hybrids":      {CurvePreferences: []tls.CurveID{tls.X25519MLKEM768, tls.SecP384r1MLKEM1024}},
		"TLS 1.2 only": {MaxVersion: tls.VersionTLS12},
	} {
		server.Certificates = []tls.Certificate{cert}
		dial := serving(t, server)
		for _, g := range groups {
			conn := dial()
			f, err := Ask(conn, ModernHello([]uint16{tls.TLS_AES_128_GCM_SHA256}, []uint16{uint16(g)}))
			if err != nil {
				t.Fatalf("%s, %s: %v", rule, g, err)
			}
			got := f.Hello != nil && f.Hello.Version == TLS13 && f.Hello.Group == uint16(g)
			conn.Close()

			conn = dial()
			client := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{g}})
			want := client.Handshake() == nil && client.ConnectionState().CurveID == g
			conn.Close()
			if got != want {
				t.Errorf("%s, %s: a hello says %t, a handshake %t", rule, g, got, want)
			}
		}
	}
}

// serving shakes hands with whoever comes, and gives what connects to it.
func serving(t *testing.T, config *tls.Config) func() net.Conn {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			tls.Server(c, config).Handshake()
			c.Close()
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done })
	return func() net.Conn {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(30 * time.Second))
		return c
	}
}
