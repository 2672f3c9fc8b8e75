package store

import "database/sql"

// Writer is the connection that changes are made on.
func (s *Store) Writer() *sql.DB { return s.w }
