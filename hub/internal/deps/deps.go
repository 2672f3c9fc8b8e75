//go:build never

package deps

import (
	_ "github.com/google/uuid"
	_ "github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/mholt/acmez/v3"
	_ "github.com/pressly/goose/v3"
	_ "github.com/zmap/zlint/v3"
	_ "modernc.org/sqlite"
)
