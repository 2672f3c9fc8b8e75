package store_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/hub/store"
	"cyphers.ai/tlsmcp/pkg/revlog"
	"cyphers.ai/tlsmcp/test/pgtest"
)

// workerURL names the store to a worker: a copy of the test's program that
// issues and revokes until it is killed.
const workerURL = "TLSMCP_TEST_STORE_WORKER"

func TestMain(m *testing.M) {
	if url := os.Getenv(workerURL); url != "" {
		os.Exit(work(url))
	}
	os.Exit(m.Run())
}

// work issues and revokes, and says so on standard output when the store has
// acknowledged it: "issued SERIAL", "revoked SERIAL SEQUENCE".
func work(url string) int {
	ctx := context.Background()
	s, err := store.Open(ctx, url, store.Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for i := 0; ; i++ {
		c := cert(fmt.Sprintf("svc%d", i%5))
		err := s.AddCertificate(ctx, c)
		if err != nil {
			fmt.Fprintln(os.Stderr, err) // the database is away
			time.Sleep(10 * time.Millisecond)
			continue
		}
		fmt.Println("issued", c.Serial)
		_, r, err := s.Revoke(ctx, c.ID, revlog.KeyCompromise, "worker")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			continue
		}
		fmt.Println("revoked", c.Serial, r.Entry.Sequence)
	}
}

// said is what workers were told is done.
type said struct {
	issued  map[string]bool
	revoked map[string]uint64
}

func newSaid() *said { return &said{map[string]bool{}, map[string]uint64{}} }

// run starts a worker and kills it after it has said a number of lines; during
// begins when it has said a quarter of them.
func (a *said) run(t *testing.T, url string, lines int, during func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), workerURL+"="+url)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := 0
	for in := bufio.NewScanner(out); in.Scan(); {
		word := strings.Fields(in.Text())
		switch word[0] {
		case "issued":
			if a.issued[word[1]] {
				t.Errorf("serial %s was issued twice", word[1])
			}
			a.issued[word[1]] = true
		case "revoked":
			n, err := strconv.ParseUint(word[2], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			a.revoked[word[1]] = n
		}
		if read++; during != nil && read == lines/4 {
			go during()
		}
		if read == lines {
			// At a moment of its own choosing, in the middle of something.
			time.AfterFunc(rand.N(3*time.Millisecond), func() { _ = cmd.Process.Kill() })
		}
	}
	err = cmd.Wait()
	if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != -1 {
		t.Fatalf("the worker ended by itself: %v\n%s", err, stderr.String())
	}
}

// check holds the store to what was said.
func (a *said) check(t *testing.T, s *store.Store) {
	t.Helper()
	bySerial := map[string]uint64{}
	for _, e := range checkLog(t, s) {
		if _, twice := bySerial[e.Serial]; twice {
			t.Errorf("serial %s is in the log twice", e.Serial)
		}
		bySerial[e.Serial] = e.Sequence
	}
	for serial, sequence := range a.revoked {
		if bySerial[serial] != sequence {
			t.Errorf("the revocation of %s was acknowledged at %d, the log has it at %d", serial, sequence, bySerial[serial])
		}
	}
	for serial := range a.issued {
		if _, err := s.Certificate(t.Context(), serial); err != nil {
			t.Errorf("certificate %s was acknowledged: %v", serial, err)
		}
	}
}

// kills is how often a worker is killed: TLSMCP_KILLS, or few.
func kills(t *testing.T, few int) int {
	if v := os.Getenv("TLSMCP_KILLS"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return few
}

func TestKillingTheHubLosesNothing(t *testing.T) {
	for name, url := range map[string]string{
		"sqlite":   "sqlite:" + filepath.Join(t.TempDir(), "hub.db"),
		"postgres": pgtest.Start(t).Database(t),
	} {
		t.Run(name, func(t *testing.T) {
			a := newSaid()
			n := kills(t, 10)
			for range n {
				a.run(t, url, 1+rand.IntN(8), nil)
			}
			if len(a.revoked) == 0 || len(a.issued) < n {
				t.Fatalf("%d issued, %d revoked: the workers did too little", len(a.issued), len(a.revoked))
			}
			a.check(t, opener(t, url)(store.Options{}))
		})
	}
}

// TestKillingOneOfTwoHubsLosesNothing has two work on one database, one of which
// is killed again and again.
func TestKillingOneOfTwoHubsLosesNothing(t *testing.T) {
	url := pgtest.Start(t).Database(t)
	stays, dies := newSaid(), newSaid()
	n := kills(t, 5)
	var other sync.WaitGroup
	other.Go(func() { stays.run(t, url, 40*n, nil) })
	for range n {
		dies.run(t, url, 1+rand.IntN(30), nil)
	}
	other.Wait()
	if len(stays.revoked) == 0 || len(dies.revoked) == 0 {
		t.Fatalf("%d and %d revoked: the workers did too little", len(stays.revoked), len(dies.revoked))
	}
	for serial := range dies.issued {
		if stays.issued[serial] {
			t.Errorf("both issued %s", serial)
		}
	}
	s := opener(t, url)(store.Options{})
	stays.check(t, s)
	dies.check(t, s)
}

func TestPostgreSQLMayCrashUnderLoad(t *testing.T) {
	server := pgtest.Start(t)
	url := server.Database(t)
	a := newSaid()
	for range kills(t, 3) {
		crashed := make(chan struct{})
		a.run(t, url, 400, func() {
			defer close(crashed)
			time.Sleep(rand.N(10 * time.Millisecond))
			server.Down(t)
			server.Up(t)
		})
		<-crashed
	}
	a.check(t, opener(t, url)(store.Options{}))
}
