# server.sh: a private PostgreSQL server, for demo/run and bench/run to source.
#
# The server lives in a directory of its own made by mktemp, listens on a unix
# socket in it (no password: the directory is closed to others) and on a free
# loopback port (with a random password), runs as an ordinary user, and is gone
# with its directory when the script ends.
#
# PG_CONFIG tells which PostgreSQL to use.  server_start leaves behind
#   server_dir, server_port, server_password, and the functions psql_ and as_server.

PG_CONFIG=${PG_CONFIG:-pg_config}
server_dir=

# Run a command as the server's user: postgres if we are root, else ourselves
as_server()
{
	if [ "$(id -u)" = 0 ]
	then
		(cd "$server_dir" && runuser -u postgres -- "$@")
	else
		(cd "$server_dir" && "$@")
	fi
}

# psql without start-up file and surprises; reads its script from stdin
psql_()
{
	as_server "$server_bin/psql" -X -q -v ON_ERROR_STOP=1 -h "$server_dir" -p "$server_port" \
		-d "${PGDATABASE:-postgres}" "$@"
}

# One value from a query
value()
{
	psql_ -A -t -c "$1"
}

free_port()
{
	local port

	while :
	do
		port=$((20000 + RANDOM % 12000))
		# nobody answers there: it is free, or was a moment ago
		(exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
	done
	echo "$port"
}

# server_start 'setting = value' ...
server_start()
{
	local try setting

	server_bin=$("$PG_CONFIG" --bindir)
	server_dir=$(mktemp -d "${TMPDIR:-/tmp}/risk_alert.XXXXXX")
	server_password=$(od -An -N12 -tx1 /dev/urandom | tr -d ' \n')
	echo "$server_password" > "$server_dir/password"
	if [ "$(id -u)" = 0 ]
	then
		chown -R postgres "$server_dir"
	fi

	as_server "$server_bin/initdb" -D "$server_dir/data" -U postgres --pwfile="$server_dir/password" \
		--auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 --locale=C --no-instructions \
		> "$server_dir/initdb.log" 2>&1 || { cat "$server_dir/initdb.log" >&2; return 1; }

	for try in 1 2 3
	do
		server_port=$(free_port)
		{
			echo "listen_addresses = '127.0.0.1'"
			echo "port = $server_port"
			echo "unix_socket_directories = '$server_dir'"
			for setting in "$@"
			do
				echo "$setting"
			done
		} > "$server_dir/data/postgresql.auto.conf"
		if as_server "$server_bin/pg_ctl" -D "$server_dir/data" -l "$server_dir/server.log" -s -w start \
			> "$server_dir/start.log" 2>&1
		then
			return 0
		fi
		# another process may have taken the port in between; all else is an error
		grep -q 'could not bind' "$server_dir/server.log" || break
	done
	echo "the server did not start; its log:" >&2
	tail -n 20 "$server_dir/server.log" >&2
	return 1
}

server_pid()
{
	head -n 1 "$server_dir/data/postmaster.pid"
}

server_restart()
{
	as_server "$server_bin/pg_ctl" -D "$server_dir/data" -l "$server_dir/server.log" -s -w -m fast restart
}

# Stop the server and remove everything; harmless if there is none
server_remove()
{
	if [ -n "$server_dir" ] && [ -d "$server_dir" ]
	then
		if [ -f "$server_dir/data/postmaster.pid" ]
		then
			as_server "$server_bin/pg_ctl" -D "$server_dir/data" -s -m immediate stop || true
		fi
		rm -rf "$server_dir"
	fi
	server_dir=
}
