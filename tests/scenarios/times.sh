# utimensat(2), and which calls move which times.
touch -d '2001-02-03 04:05:06.123456789Z' f; TZ=UTC stat -c '%x %y' f; touch -a -d '2002-01-01Z' f; TZ=UTC stat -c '%x|%y' f
touch -m -d '2003-01-01Z' f; TZ=UTC stat -c '%X %Y' f; touch -r f g; stat -c %Y g; touch -h -d '2004-01-01Z' g; stat -c %Y g
a=$(stat -c %Y f); echo x >> f; b=$(stat -c %Y f); [ "$b" -gt "$a" ] && echo written
mkdir d; touch -d '2001-01-01Z' d; true > d/x; [ "$(stat -c %Y d)" -gt 1000000000 ] && echo entered
touch nope/x; touch -c nope; ls
