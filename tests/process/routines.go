// Many goroutines with files and programs: Go interrupts its own threads with signals all the time.
package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

func main() {
	var group sync.WaitGroup
	failed := make(chan error, 1000)
	for n := 0; n < 40; n++ {
		group.Add(1)
		go func(n int) {
			defer group.Done()
			path := filepath.Join(os.Args[1], fmt.Sprintf("go-%d", n))
			data := bytes.Repeat([]byte{byte(n)}, 20000)
			for round := 0; round < 5; round++ {
				if err := os.WriteFile(path, data, 0o600); err != nil {
					failed <- err
				}
				if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, data) {
					failed <- fmt.Errorf("%s: %v, %d bytes", path, err, len(got))
				}
			}
			if n%4 == 0 {
				if out, err := exec.Command("sh", "-c", "echo $0", path).Output(); err != nil || string(out) != path+"\n" {
					failed <- fmt.Errorf("%s: %v", out, err)
				}
			}
			if err := os.Remove(path); err != nil {
				failed <- err
			}
		}(n)
	}
	group.Wait()
	close(failed)
	for err := range failed {
		fmt.Println(err)
	}
	fmt.Println("done")
}
