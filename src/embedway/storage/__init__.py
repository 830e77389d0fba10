"""The database: engines, tables, migrations, transactions and paging; and the pepper."""
