package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// grpcServer is the health service, and a service of our own: Chat answers each
// message with one, and ends as the messages tell it to. Both use the health
// service's messages, so nothing has to be generated.
func grpcServer(t *testing.T) (addr string, chatsEnded chan error) {
	t.Helper()
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	ended := make(chan error, 16)
	s := grpc.NewServer()
	healthpb.RegisterHealthServer(s, health.NewServer())
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "e2e.Chat", HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{StreamName: "Chat", ServerStreams: true, ClientStreams: true,
			Handler: func(_ any, stream grpc.ServerStream) error {
				err := chat(stream)
				ended <- err
				return err
			}}},
	}, nil)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return l.Addr().String(), ended
}

func chat(stream grpc.ServerStream) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	stream.SetTrailer(metadata.Pairs("said-by", strings.Join(md.Get("x-tlsmcp-identity"), ",")))
	for {
		var in healthpb.HealthCheckRequest
		if err := stream.RecvMsg(&in); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if in.Service == "fail" {
			return status.Error(codes.FailedPrecondition, "as you wish: 100%")
		}
		if err := stream.SendMsg(&healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}); err != nil {
			return err
		}
	}
}

func TestGRPC(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	addr, ended := grpcServer(t)
	d := w.start(set{"backend.address": addr, "backend.protocol": "h2c"})
	conn := must(grpc.NewClient("passthrough:///"+d.addr, grpc.WithTransportCredentials(credentials.NewTLS(w.tls(w.client("alice"), "h2")))))(t)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	healthy := healthpb.NewHealthClient(conn)
	open := func(t *testing.T, ctx context.Context) grpc.ClientStream {
		t.Helper()
		return must(conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/e2e.Chat/Chat"))(t)
	}
	say := func(t *testing.T, s grpc.ClientStream, word string) error {
		t.Helper()
		if err := s.SendMsg(&healthpb.HealthCheckRequest{Service: word}); err != nil {
			t.Fatal(err)
		}
		return s.RecvMsg(new(healthpb.HealthCheckResponse))
	}

	t.Run("a call is answered", func(t *testing.T) {
		resp, err := healthy.Check(ctx, &healthpb.HealthCheckRequest{})
		if err != nil || resp.Status != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("%v, %v", resp, err)
		}
	})
	t.Run("an error without a body keeps its code and text", func(t *testing.T) {
		_, err := healthy.Check(ctx, &healthpb.HealthCheckRequest{Service: "nobody"})
		if status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), "unknown service") {
			t.Errorf("%v", err)
		}
	})
	t.Run("a stream of the server comes as it is sent", func(t *testing.T) {
		watch := must(healthy.Watch(ctx, &healthpb.HealthCheckRequest{}))(t)
		if resp, err := watch.Recv(); err != nil || resp.Status != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("%v, %v", resp, err)
		}
	})
	t.Run("both sides talk in turn, and the trailers follow", func(t *testing.T) {
		s := open(t, ctx)
		for range 3 {
			if err := say(t, s, "hello"); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if err := s.RecvMsg(new(healthpb.HealthCheckResponse)); !errors.Is(err, io.EOF) {
			t.Errorf("the end is %v", err)
		}
		if got := s.Trailer().Get("said-by"); len(got) != 1 || got[0] != "alice" {
			t.Errorf("the trailer is %q", got)
		}
		<-ended
	})
	t.Run("an error after messages keeps its code and text", func(t *testing.T) {
		s := open(t, ctx)
		if err := say(t, s, "hello"); err != nil {
			t.Fatal(err)
		}
		err := say(t, s, "fail")
		if st := status.Convert(err); st.Code() != codes.FailedPrecondition || st.Message() != "as you wish: 100%" {
			t.Errorf("%v", err)
		}
		<-ended
	})
	t.Run("a call that the client gives up ends at the server", func(t *testing.T) {
		ctx, giveUp := context.WithCancel(ctx)
		s := open(t, ctx)
		if err := say(t, s, "hello"); err != nil {
			t.Fatal(err)
		}
		giveUp()
		select {
		case err := <-ended:
			if status.Code(err) != codes.Canceled {
				t.Errorf("the server's side ended with %v", err)
			}
		case <-time.After(patience):
			t.Error("the server does not hear of it")
		}
	})
}

func TestHTTP1InFrontOfH2C(t *testing.T) {
	t.Parallel()
	w, b := newWorld(t), newBackend(t)
	d := w.start(set{"backend.address": b.addr, "backend.protocol": "h2c"})
	alice := w.client("alice")
	for _, h2 := range []bool{false, true} {
		resp, err := w.http(alice, h2).Post("https://"+d.addr+"/seen", "text/plain", strings.NewReader("a body"))
		if err != nil {
			t.Fatal(err)
		}
		body, err := readAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		s := parseSeen(t, body)
		if s.Proto != "HTTP/2.0" || s.Body != "a body" || s.Header.Get("X-Tlsmcp-Identity") != "alice" || s.Host != d.addr {
			t.Errorf("h2 %t: the backend saw %+v", h2, s)
		}
	}
	c, r := w.talk(d, alice, "/hello")
	for range 3 { // kept alive
		if resp, body, err := ask(c, r, "/hello"); err != nil || resp.StatusCode != 200 || body != "hello" {
			t.Fatalf("%v %q %v", resp, body, err)
		}
	}
}

func TestWebSocket(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	s := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(rw, r, &websocket.AcceptOptions{Subprotocols: []string{"echo"}})
		if err != nil {
			return
		}
		c.SetReadLimit(-1)
		for {
			kind, data, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if string(data) == "bye" {
				_ = c.Close(4001, "so long, "+r.Header.Get("X-Tlsmcp-Identity"))
				return
			}
			if c.Write(r.Context(), kind, data) != nil {
				return
			}
		}
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	d := w.start(set{"backend.address": l.Addr().String()})

	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	c, resp, err := websocket.Dial(ctx, "wss://"+d.addr+"/", &websocket.DialOptions{HTTPClient: w.http(w.client("alice"), false), Subprotocols: []string{"echo"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if resp.StatusCode != http.StatusSwitchingProtocols || c.Subprotocol() != "echo" {
		t.Errorf("%s, subprotocol %q", resp.Status, c.Subprotocol())
	}
	c.SetReadLimit(-1)
	big := make([]byte, 2<<20)
	_, _ = rand.Read(big)
	for _, message := range [][]byte{[]byte("a"), {}, big} {
		if err := c.Write(ctx, websocket.MessageBinary, message); err != nil {
			t.Fatal(err)
		}
		kind, got, err := c.Read(ctx)
		if err != nil || kind != websocket.MessageBinary || !bytes.Equal(got, message) {
			t.Fatalf("a message of %d bytes came back as %v of %d: %v", len(message), kind, len(got), err)
		}
	}
	reading := c.CloseRead(ctx) // a pong is read with the messages
	if err := c.Ping(ctx); err != nil || reading.Err() != nil {
		t.Errorf("ping: %v", err)
	}
	if err := c.Write(ctx, websocket.MessageText, []byte("bye")); err != nil {
		t.Fatal(err)
	}
	select {
	case <-reading.Done():
	case <-time.After(patience):
		t.Fatal("the close does not arrive")
	}
	e := d.expect(t, kv{"msg": "connection closed", "identity": "alice"})
	if got := e.str("bytes_in"); len(got) < 7 {
		t.Errorf("the event counts %s bytes in", got)
	}
	if got := d.metric(`tlsmcp_requests_total{protocol="websocket",code="1xx"}`); got != 1 {
		t.Errorf("%v websocket upgrades are counted", got)
	}
}

func TestServerSentEvents(t *testing.T) {
	t.Parallel()
	w, b := newWorld(t), newBackend(t)
	for _, c := range []struct {
		name, protocol string
		h2             bool
	}{{"HTTP/1.1", "http", false}, {"HTTP/2", "http", true}, {"HTTP/2 to h2c", "h2c", true}, {"HTTP/1.1 to h2c", "h2c", false}} {
		t.Run(c.name, func(t *testing.T) {
			d := w.start(set{"backend.address": b.addr, "backend.protocol": c.protocol})
			resp, err := w.http(w.client("alice"), c.h2).Get("https://" + d.addr + "/ticks")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if got := resp.Header.Get("Content-Type"); got != "text/event-stream" {
				t.Errorf("Content-Type: %q", got)
			}
			// The stream has no end: an event that arrives was not held back.
			lines := bufio.NewScanner(resp.Body)
			for events := 0; events < 5; {
				if !lines.Scan() {
					t.Fatalf("the stream ended after %d events: %v", events, lines.Err())
				}
				if lines.Text() == "data: tick" {
					events++
				}
			}
		})
	}
}
