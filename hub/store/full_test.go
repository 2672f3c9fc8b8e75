package store_test

import (
	"errors"
	"path/filepath"
	"testing"

	"cyphers.ai/tlsmcp/hub/store"
	"cyphers.ai/tlsmcp/ipc/problem"
	"cyphers.ai/tlsmcp/pkg/revlog"
)

func TestAFullDiskIsSaidInWords(t *testing.T) {
	ctx := t.Context()
	s := opener(t, "sqlite:"+filepath.Join(t.TempDir(), "hub.db"))(store.Options{})
	// SQLite says of a database that may not grow what it says on a full disk.
	if _, err := s.Writer().ExecContext(ctx, "PRAGMA max_page_count = 1"); err != nil {
		t.Fatal(err)
	}
	revoke := func() error {
		_, err := s.RevokeName(ctx, revlog.Name{Kind: revlog.Service, Name: "pay"}, revlog.KeyCompromise, "uid:0")
		return err
	}
	var err error
	for range 10_000 { // until the pages that are there have no room
		if err = revoke(); err != nil {
			break
		}
		if _, err = s.LiftName(ctx, revlog.Name{Kind: revlog.Service, Name: "pay"}, "uid:0"); err != nil {
			break
		}
	}
	var p *problem.Error
	if !errors.As(err, &p) || p.Code != "store_full" || p.Class != problem.Unavailable || p.Hint == "" {
		t.Fatalf("a full disk: %v", err)
	}
	if _, err := s.Writer().ExecContext(ctx, "PRAGMA max_page_count = 1000000"); err != nil {
		t.Fatal(err)
	}
	if err := revoke(); err != nil {
		t.Errorf("when there is room again: %v", err)
	}
}
