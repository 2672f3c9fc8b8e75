package store_test

import (
	"database/sql"
	"errors"
	"path/filepath"
	"testing"

	"cyphers.ai/tlsmcp/hub/store"
)

func TestADatabaseOfANewerVersionIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hub.db")
	open := func() error {
		s, err := store.Open(t.Context(), "sqlite:"+file, store.Options{})
		if err != nil {
			return err
		}
		return s.Close()
	}
	if err := open(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", file)
	if err != nil {
		t.Fatal(err)
	}
	version := func(change string) {
		t.Helper()
		if _, err := db.Exec(change); err != nil {
			t.Fatal(err)
		}
	}
	version("INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)")
	if err := open(); !errors.Is(err, store.ErrNewer) {
		t.Errorf("got %v, want %v", err, store.ErrNewer)
	}
	version("DELETE FROM goose_db_version WHERE version_id = 9999")
	if err := errors.Join(db.Close(), open()); err != nil {
		t.Errorf("the one that it knows: %v", err)
	}
}
